#include "broker/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "broker/config_table.h"
#include "proto/wire.h"

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)
#define MS UINT64_C(1000)
#define SECOND (1000 * MS)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define CPU_MAX 1023

static const char *const levels[] = {"auto", "memory", "interval", "commit", NULL};
static const char *const log_levels[] = {"debug", "info", "warning", "error", NULL};

#define MEMBER(m)                                                                                  \
    .offset = offsetof(struct sel_broker_config, m),                                               \
    .width = sizeof(((struct sel_broker_config *)0)->m)
#define OPTION(m) MEMBER(options.m)

const struct sel_broker_setting sel_broker_settings[] = {
    {"listen", SEL_BROKER_ENDPOINTS, MEMBER(listen), "tcp://127.0.0.1:5711",
     .help = "where producers and workers connect: tcp://ADDRESS:PORT, ipc://PATH; port * takes a "
             "free one. May be a list"},
    {"query", SEL_BROKER_ENDPOINTS, MEMBER(query), "tcp://127.0.0.1:5712",
     .help =
         "where questions and commands come in (selinon-cli status, drain, ...). May be a list; "
         "whoever reaches it may drain the broker"},
    {"name", SEL_BROKER_TEXT, MEMBER(name), "broker", .help = "for people, in the log"},
    {"journal", SEL_BROKER_TEXT, MEMBER(journal), "selinon-journal", .has_none = true,
     .help = "folder of the journal, made if missing; none: nothing outlives the process, levels "
             "interval and commit are refused"},
    {"journal_size_max", SEL_BROKER_SIZE, MEMBER(journal_size_max), "auto", MIB, 1024 * TIB,
     .help = "bytes that the journal may take; auto: 64 GiB, used as needed"},
    {"journal_reserve", SEL_BROKER_SIZE, MEMBER(journal_reserve), "auto", 64 * KIB, TIB,
     .help = "bytes of it that only completions may use, never submits; auto: 64 MiB, or an eighth "
             "of journal_size_max"},
    {"level_default", SEL_BROKER_CHOICE, OPTION(level_default), "auto", .choices = levels,
     .help = "durability of submits that ask for none; auto: level_max"},
    {"level_max", SEL_BROKER_CHOICE, OPTION(level_max), "auto", .choices = levels,
     .help = "the strongest durability that is offered; auto: commit with a journal, else memory"},
    {"interval", SEL_BROKER_TIME, OPTION(interval_us), "100ms", MS, HOUR,
     .help = "how often level interval is synced to disk"},
    {"lease", SEL_BROKER_TIME, OPTION(lease_us), "10s", 100 * MS, HOUR,
     .help = "a worker or producer that is unheard for so long is forgotten, and its tasks go to "
             "others; so long the broker waits for its workers after a restart"},
    {"beat", SEL_BROKER_TIME, OPTION(beat_us), "auto", 10 * MS, HOUR,
     .help = "how often peers are to say something; auto: a fifth of lease"},
    {"poison_max", SEL_BROKER_COUNT, OPTION(poison_max), "3", 1, 15,
     .help = "a task that took so many workers with it fails with WorkerLost"},
    {"unknown_task", SEL_BROKER_TIME, OPTION(unknown_task_us), "30s", MS, DAY,
     .help = "a task that no worker has known for so long fails with UnknownTask"},
    {"result_max", SEL_BROKER_COUNT, OPTION(result_max), "100000", 1, 100000000,
     .help = "results that are kept after they have been delivered"},
    {"result_bytes_max", SEL_BROKER_SIZE, OPTION(result_bytes_max), "auto", KIB, TIB,
     .help =
         "bytes of these results, nodes of large flows among them; auto: an eighth of memory_max"},
    {"result_ttl", SEL_BROKER_TIME, OPTION(result_ttl_us), "1h", MS, 3650 * DAY,
     .help = "for so long such a result is kept"},
    {"memory_max", SEL_BROKER_SIZE, OPTION(memory_max), "1GiB", 4 * MIB, 64 * TIB,
     .help = "bytes of tasks, results and buffers. At three quarters of it producers get no more "
             "credit, at all of it submits are refused"},
    {"payload_memory", SEL_BROKER_SIZE, OPTION(payload_memory), "16MiB", 1, 64 * TIB,
     .help = "arguments that are kept in memory though the journal has them; what is more is read "
             "back when it is delivered"},
    {"session_max", SEL_BROKER_COUNT, OPTION(session_max), "65536", 1, 1000000,
     .help = "producers and workers at a time"},
    {"queue_max", SEL_BROKER_COUNT, OPTION(queue_max), "4096", 1, 65534,
     .help = "names of queues at a time"},
    {"record_max", SEL_BROKER_SIZE, OPTION(record_max), "1028KiB", 4096, SEL_WIRE_RECORD_MAX,
     .help = "the largest task, arguments and header, that is taken"},
    {"window_records", SEL_BROKER_COUNT, OPTION(window_records), "65536", 1, 100000000,
     .help = "records that a peer may send before the broker has worked on them"},
    {"window_bytes", SEL_BROKER_SIZE, OPTION(window_bytes), "8MiB", 4096, TIB,
     .help = "the same in bytes, at least record_max; when the windows of all producers add up to "
             "half of "
             "memory_max, further ones begin with 64 KiB and get as much as they ask for"},
    {"outbox_bytes_max", SEL_BROKER_SIZE, OPTION(outbox_bytes_max), "16MiB", 4096, TIB,
     .help =
         "bytes that are kept for a peer until it has settled them; then it gets no more. Never "
         "above an eighth of memory_max"},
    {"batch_bytes_max", SEL_BROKER_SIZE, OPTION(batch_bytes_max), "1MiB", 4096, 32 * MIB,
     .help = "a batch of the journal ends there"},
    {"journal_compact_min", SEL_BROKER_SIZE, OPTION(journal_compact_min), "64MiB", KIB, TIB,
     .help = "bytes of the journal that are no longer needed before what is needed is copied on"},
    {"shard", SEL_BROKER_COUNT, OPTION(shard), "0", 0, 4095, .help = "number in a cluster"},
    {"io_threads", SEL_BROKER_COUNT, MEMBER(io_threads), "1", 1, 16,
     .help = "threads that move bytes between sockets and the broker's own thread"},
    {"socket_messages", SEL_BROKER_COUNT, MEMBER(socket_messages), "64", 1, 100000,
     .help = "messages that wait in a connection, each way. With 4 MiB a message it bounds what "
             "a peer that breaks the protocol can make the broker hold"},
    {"pin", SEL_BROKER_CPU, MEMBER(pin), "none", 0, CPU_MAX, .has_none = true,
     .help = "number of the processor for the broker's own thread"},
    {"log_level", SEL_BROKER_CHOICE, MEMBER(log_level), "info", .choices = log_levels,
     .help = "what is less than that is not logged"},
    {"ready_file", SEL_BROKER_TEXT, MEMBER(ready_file), "none", .has_none = true,
     .help =
         "written when the broker answers: lines `listen ENDPOINT` and `query ENDPOINT` with the "
         "ports that it got"},
};
const uint32_t sel_broker_setting_count = SEL_COUNT(sel_broker_settings);

const struct sel_broker_setting *sel_broker_setting_find(struct sel_str name)
{
    for (uint32_t i = 0; i < sel_broker_setting_count; i++) {
        const char *known = sel_broker_settings[i].name;
        size_t at = 0;
        while (at < name.n && known[at] &&
               (name.p[at] == known[at] || (name.p[at] == '-' && known[at] == '_')))
            at++;
        if (at == name.n && !known[at])
            return &sel_broker_settings[i];
    }
    return NULL;
}

/* ---- amounts ---- */

struct unit {
    const char *name;
    uint64_t factor;
};

/* The first of equal factors is the one that is written; larger ones come first. */
static const struct unit sizes[] = {{"TiB", TIB}, {"GiB", GIB}, {"MiB", MIB},
                                    {"KiB", KIB}, {"B", 1},     {NULL, 0}};
static const struct unit times[] = {{"h", HOUR}, {"min", MINUTE}, {"s", SECOND}, {"ms", MS},
                                    {"us", 1},   {"d", DAY},      {NULL, 0}};

static const char *format_amount(uint64_t value, const struct unit *units,
                                 char out[SEL_BROKER_AMOUNT_SIZE])
{
    const struct unit *unit = units;
    while (unit->factor > 1 && (value % unit->factor != 0 || value == 0))
        unit++;
    (void)snprintf(out, SEL_BROKER_AMOUNT_SIZE, "%" PRIu64 "%s", value / unit->factor, unit->name);
    return out;
}

const char *sel_broker_config_format_time(uint64_t us, char out[SEL_BROKER_AMOUNT_SIZE])
{
    return format_amount(us, times, out);
}

const char *sel_broker_config_format_size(uint64_t bytes, char out[SEL_BROKER_AMOUNT_SIZE])
{
    return format_amount(bytes, sizes, out);
}

/* Digits at the beginning of `*text`, which is moved behind them. */
static bool take_digits(struct sel_str *text, uint64_t *ret)
{
    uint64_t value = 0;
    size_t n = 0;
    for (; n < text->n && text->p[n] >= '0' && text->p[n] <= '9'; n++) {
        uint64_t digit = (uint64_t)(text->p[n] - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *text = (struct sel_str){text->p + n, text->n - n};
    *ret = value;
    return n > 0;
}

/* A number with one of `units`. */
static bool parse_amount(struct sel_str text, const struct unit *units, uint64_t *ret)
{
    uint64_t value;
    if (!take_digits(&text, &value))
        return false;
    if (text.n > 0 && text.p[0] == ' ')
        text = (struct sel_str){text.p + 1, text.n - 1};
    for (; units->name; units++) {
        if (sel_str_eq_c(text, units->name)) {
            if (value > UINT64_MAX / units->factor)
                return false;
            *ret = value * units->factor;
            return true;
        }
    }
    return false;
}

static bool parse_number(const struct sel_broker_setting *setting, struct sel_str text,
                         uint64_t *ret)
{
    if (setting->kind == SEL_BROKER_SIZE)
        return parse_amount(text, sizes, ret);
    if (setting->kind == SEL_BROKER_TIME)
        return parse_amount(text, times, ret);
    return take_digits(&text, ret) && text.n == 0;
}

static const char *format_number(const struct sel_broker_setting *setting, uint64_t value,
                                 char out[SEL_BROKER_AMOUNT_SIZE])
{
    if (setting->kind == SEL_BROKER_SIZE)
        return sel_broker_config_format_size(value, out);
    if (setting->kind == SEL_BROKER_TIME)
        return sel_broker_config_format_time(value, out);
    (void)snprintf(out, SEL_BROKER_AMOUNT_SIZE, "%" PRIu64, value);
    return out;
}

static void store_number(void *member, size_t width, uint64_t value)
{
    switch (width) {
    case 1:
        *(uint8_t *)member = (uint8_t)value;
        return;
    case 4:
        *(uint32_t *)member = (uint32_t)value;
        return;
    default:
        SEL_ASSERT(width == 8);
        *(uint64_t *)member = value;
    }
}

static uint64_t load_number(const void *member, size_t width)
{
    switch (width) {
    case 1:
        return *(const uint8_t *)member;
    case 4:
        return *(const uint32_t *)member;
    default:
        SEL_ASSERT(width == 8);
        return *(const uint64_t *)member;
    }
}

/* ---- one value ---- */

static bool is_auto(const struct sel_broker_setting *setting)
{
    return strcmp(setting->initial, "auto") == 0;
}

static int set_number(const struct sel_broker_setting *setting, struct sel_str text, void *member,
                      char why[SEL_BROKER_WHY_SIZE])
{
    static const char *const expected[] = {
        [SEL_BROKER_COUNT] = "a whole number",
        [SEL_BROKER_SIZE] = "a size like 64MiB (B, KiB, MiB, GiB, TiB)",
        [SEL_BROKER_TIME] = "a time like 100ms (us, ms, s, min, h, d)",
        [SEL_BROKER_CPU] = "the number of a processor, or none",
    };
    uint64_t value;
    if (is_auto(setting) && sel_str_eq_c(text, "auto")) {
        store_number(member, setting->width, 0);
        return 0;
    }
    if (!parse_number(setting, text, &value)) {
        (void)snprintf(why, SEL_BROKER_WHY_SIZE, "'%.*s' is not %s",
                       (int)(text.n < 64 ? text.n : 64), text.p, expected[setting->kind]);
        return SEL_ECONFIG;
    }
    if (value < setting->min || value > setting->max) {
        char low[SEL_BROKER_AMOUNT_SIZE], high[SEL_BROKER_AMOUNT_SIZE];
        (void)snprintf(why, SEL_BROKER_WHY_SIZE, "%.*s is out of range, %s to %s",
                       (int)(text.n < 64 ? text.n : 64), text.p,
                       format_number(setting, setting->min, low),
                       format_number(setting, setting->max, high));
        return SEL_ECONFIG;
    }
    store_number(member, setting->width, value);
    return 0;
}

static int set_choice(const struct sel_broker_setting *setting, struct sel_str text, void *member,
                      char why[SEL_BROKER_WHY_SIZE])
{
    size_t n = (size_t)snprintf(why, SEL_BROKER_WHY_SIZE, "'%.*s' is none of",
                                (int)(text.n < 64 ? text.n : 64), text.p);
    for (uint32_t i = 0; setting->choices[i]; i++) {
        if (sel_str_eq_c(text, setting->choices[i])) {
            store_number(member, setting->width, i);
            return 0;
        }
        n += (size_t)snprintf(why + n, SEL_BROKER_WHY_SIZE - n, "%s %s", i ? "," : "",
                              setting->choices[i]);
    }
    return SEL_ECONFIG;
}

static const char *refuse_endpoint(struct sel_str text)
{
    static const char *const schemes[] = {"tcp://", "ipc://", "inproc://"};
    for (size_t i = 0; i < SEL_COUNT(schemes); i++) {
        size_t n = strlen(schemes[i]);
        if (text.n <= n || memcmp(text.p, schemes[i], n) != 0)
            continue;
        const char *colon = memrchr(text.p + n, ':', text.n - n);
        if (i == 0 && (!colon || colon == text.p + n || colon + 1 == text.p + text.n))
            return "a tcp endpoint has an address and a port, like tcp://127.0.0.1:5711 or "
                   "tcp://*:5711";
        return NULL;
    }
    return "is no endpoint; write tcp://ADDRESS:PORT or ipc://PATH";
}

static int add_endpoint(struct sel_arena *arena, struct sel_str text,
                        struct sel_broker_endpoints *endpoints, char why[SEL_BROKER_WHY_SIZE])
{
    const char *refusal = refuse_endpoint(text);
    if (!refusal && endpoints->count == SEL_BROKER_ENDPOINTS_MAX)
        refusal = "is one endpoint too many; 16 are taken";
    if (refusal) {
        (void)snprintf(why, SEL_BROKER_WHY_SIZE, "'%.*s': %s", (int)(text.n < 64 ? text.n : 64),
                       text.p, refusal);
        return SEL_ECONFIG;
    }
    const char *copy = sel_arena_strdup(arena, text);
    if (!copy)
        return SEL_ENOMEM;
    endpoints->items[endpoints->count++] = copy;
    return 0;
}

static int set_text(const struct sel_broker_setting *setting, struct sel_arena *arena,
                    struct sel_str text, const char **member, char why[SEL_BROKER_WHY_SIZE])
{
    if (text.n == 0 || memchr(text.p, '\0', text.n)) {
        (void)snprintf(why, SEL_BROKER_WHY_SIZE, "a text is expected%s",
                       setting->has_none ? ", or none" : "");
        return SEL_ECONFIG;
    }
    if (setting->has_none && sel_str_eq_c(text, "none")) {
        *member = NULL;
        return 0;
    }
    const char *copy = sel_arena_strdup(arena, text);
    if (!copy)
        return SEL_ENOMEM;
    *member = copy;
    return 0;
}

int sel_broker_setting_set(const struct sel_broker_setting *setting,
                           struct sel_broker_config *config, struct sel_arena *arena,
                           struct sel_str text, char why[SEL_BROKER_WHY_SIZE])
{
    void *member = sel_broker_setting_member(setting, config);
    switch (setting->kind) {
    case SEL_BROKER_TEXT:
        return set_text(setting, arena, text, member, why);
    case SEL_BROKER_ENDPOINTS:
        return add_endpoint(arena, text, member, why);
    case SEL_BROKER_CHOICE:
        return set_choice(setting, text, member, why);
    case SEL_BROKER_CPU:
        if (sel_str_eq_c(text, "none")) {
            *(int32_t *)member = -1;
            return 0;
        }
        return set_number(setting, text, member, why);
    default:
        return set_number(setting, text, member, why);
    }
}

static void set_initial(const struct sel_broker_setting *setting, struct sel_broker_config *config)
{
    char why[SEL_BROKER_WHY_SIZE];
    struct sel_broker_endpoints *endpoints = sel_broker_setting_member(setting, config);
    if (setting->kind == SEL_BROKER_ENDPOINTS) { /* these texts are static, no copy is needed */
        *endpoints = (struct sel_broker_endpoints){{setting->initial}, 1};
    } else if (setting->kind == SEL_BROKER_TEXT) {
        bool is_none = setting->has_none && strcmp(setting->initial, "none") == 0;
        *(const char **)sel_broker_setting_member(setting, config) =
            is_none ? NULL : setting->initial;
    } else {
        int r = sel_broker_setting_set(setting, config, NULL, sel_str_c(setting->initial), why);
        SEL_ASSERT(r == 0); /* the table's own default */
    }
}

void sel_broker_config_init(struct sel_broker_config *config)
{
    *config = (struct sel_broker_config){0};
    for (uint32_t i = 0; i < sel_broker_setting_count; i++)
        set_initial(&sel_broker_settings[i], config);
}

/* ---- output ---- */

/* As YAML in one line; always quoted where it is free text. */
static void put_text(struct sel_buf *out, const char *text)
{
    sel_buf_put_u8(out, '\'');
    for (; *text; text++) {
        if (*text == '\'')
            sel_buf_put_u8(out, '\'');
        sel_buf_put_u8(out, (uint8_t)*text);
    }
    sel_buf_put_u8(out, '\'');
}

static void put_value(const struct sel_broker_setting *setting,
                      const struct sel_broker_config *config, struct sel_buf *out)
{
    const void *member = (const char *)config + setting->offset;
    const struct sel_broker_endpoints *endpoints = member;
    char amount[SEL_BROKER_AMOUNT_SIZE];
    if (setting->kind == SEL_BROKER_ENDPOINTS) {
        for (uint32_t i = 0; i < endpoints->count; i++) {
            sel_buf_put_c(out, i ? ", " : "[");
            put_text(out, endpoints->items[i]);
        }
        sel_buf_put_c(out, "]");
        return;
    }
    if (setting->kind == SEL_BROKER_TEXT) {
        const char *text = *(const char *const *)member;
        if (text)
            put_text(out, text);
        else
            sel_buf_put_c(out, "none");
        return;
    }
    uint64_t value = load_number(member, setting->width);
    if (setting->kind == SEL_BROKER_CHOICE)
        sel_buf_put_c(out, setting->choices[value]);
    else if (setting->kind == SEL_BROKER_CPU && *(const int32_t *)member < 0)
        sel_buf_put_c(out, "none");
    else if (is_auto(setting) && value == 0)
        sel_buf_put_c(out, "auto");
    else
        sel_buf_put_c(out, format_number(setting, value, amount));
}

void sel_broker_config_print(const struct sel_broker_config *config, struct sel_buf *out)
{
    for (uint32_t i = 0; i < sel_broker_setting_count; i++) {
        sel_buf_printf(out, "%s: ", sel_broker_settings[i].name);
        put_value(&sel_broker_settings[i], config, out);
        sel_buf_put_u8(out, '\n');
    }
}

void sel_broker_config_document(struct sel_buf *out)
{
    for (uint32_t i = 0; i < sel_broker_setting_count; i++) {
        const struct sel_broker_setting *setting = &sel_broker_settings[i];
        char low[SEL_BROKER_AMOUNT_SIZE], high[SEL_BROKER_AMOUNT_SIZE];
        sel_buf_printf(out, "| `%s` | `%s` | ", setting->name, setting->initial);
        if (setting->choices) {
            for (uint32_t c = 0; setting->choices[c]; c++)
                sel_buf_printf(out, "%s`%s`", c ? ", " : "", setting->choices[c]);
        } else if (setting->max > 0) {
            sel_buf_printf(out, "%s to %s", format_number(setting, setting->min, low),
                           format_number(setting, setting->max, high));
        }
        sel_buf_printf(out, " | %s |\n", setting->help);
    }
}

#define HELP_COLUMN 30
#define HELP_WIDTH 100

/* Words of `text` from HELP_COLUMN on. */
static void put_words(struct sel_buf *out, const char *text)
{
    size_t column = HELP_COLUMN;
    while (*text) {
        size_t n = strcspn(text, " ");
        if (column > HELP_COLUMN && column + 1 + n > HELP_WIDTH) {
            sel_buf_printf(out, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        }
        if (column > HELP_COLUMN) {
            sel_buf_put_u8(out, ' ');
            column++;
        }
        sel_buf_put(out, text, n);
        column += n;
        text += n + strspn(text + n, " ");
    }
    sel_buf_put_u8(out, '\n');
}

static void put_option(struct sel_buf *out, const char *name, const char *help)
{
    size_t begin = out->n;
    sel_buf_put_c(out, "  --");
    for (; *name; name++)
        sel_buf_put_u8(out, *name == '_' ? (uint8_t)'-' : (uint8_t)*name);
    size_t n = out->n - begin;
    sel_buf_printf(out, "%*s", n < HELP_COLUMN ? (int)(HELP_COLUMN - n) : 1, "");
    put_words(out, help);
}

void sel_broker_config_help(struct sel_buf *out)
{
    sel_buf_put_c(out, "Usage: selinon-broker [OPTIONS]\n\n"
                       "Takes tasks from producers and gives them to workers.\n\nOptions:\n");
    put_option(out, "config FILE", "YAML with the settings below, with _ for - in their names");
    put_option(out, "print_config", "print all settings as such a file, and stop");
    put_option(out, "version", "print the version, and stop");
    put_option(out, "help", "this text");
    sel_buf_put_c(out, "\nSettings, each with a value (the command line wins over the file):\n");
    for (uint32_t i = 0; i < sel_broker_setting_count; i++) {
        char help[512];
        (void)snprintf(help, sizeof(help), "%s [%s]", sel_broker_settings[i].help,
                       sel_broker_settings[i].initial);
        put_option(out, sel_broker_settings[i].name, help);
    }
    sel_buf_put_c(out, "\nSizes are written like 64MiB, times like 100ms. Everything about running "
                       "it: docs/operations.md\n");
}
