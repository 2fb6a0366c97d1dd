/* The settings of selinon-broker: one table, every fault at once, nothing undocumented. */
#include "tests/support/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/config.h"
#include "broker/config_table.h"
#include "proto/wire.h"

#define MIB (UINT64_C(1) << 20)

struct fixture {
    struct sel_arena arena;
    struct sel_diag diag;
    struct sel_broker_config config;
};

static struct fixture *fixture_new(void)
{
    static struct fixture f;
    f = (struct fixture){0};
    sel_diag_init(&f.diag, &f.arena);
    sel_broker_config_init(&f.config);
    return &f;
}

static int load_yaml(struct fixture *f, const char *text)
{
    int r = sel_broker_config_yaml(&f->config, &f->arena, "b.yaml", sel_str_c(text), &f->diag);
    sel_diag_sort(&f->diag);
    return r;
}

/* "b.yaml:1:1: text" of all diagnostics, a line each. */
static const char *all_diagnostics(struct fixture *f)
{
    const char *all = "";
    for (const struct sel_diag_item *item = f->diag.first; item; item = item->next) {
        struct sel_error err = {.pos = item->pos};
        char text[SEL_ERROR_TEXT_MAX];
        (void)snprintf(err.text, sizeof(err.text), "%s", item->text);
        all =
            sel_arena_printf(&f->arena, "%s%s\n", all, sel_error_format(&err, text, sizeof(text)));
        assert_non_null(all);
    }
    return all;
}

static int load_args(struct fixture *f, enum sel_broker_action *action, const char *const *args)
{
    char *argv[32] = {(char *)(uintptr_t) "selinon-broker"};
    int argc = 1;
    for (; *args; args++)
        argv[argc++] = (char *)(uintptr_t)*args;
    return sel_broker_config_load(&f->config, &f->arena, argc, argv, action, &f->diag);
}

#define LOAD(f, ...)                                                                               \
    load_args((f), &(enum sel_broker_action){0}, (const char *const[]){__VA_ARGS__, NULL})

static void test_defaults_are_those_of_the_documentation(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    const struct sel_broker_config *c = &f->config;
    assert_string_equal(c->listen.items[0], "tcp://127.0.0.1:5711");
    assert_string_equal(c->query.items[0], "tcp://127.0.0.1:5712");
    assert_string_equal(c->journal, "selinon-journal");
    assert_null(c->ready_file);
    assert_int_equal(c->options.lease_us, 10000000);
    assert_int_equal(c->options.beat_us, 0); /* auto */
    assert_int_equal(c->options.memory_max, 1024 * MIB);
    assert_int_equal(c->options.record_max, SEL_WIRE_RECORD_MAX);
    assert_int_equal(c->pin, -1);
    assert_int_equal(c->log_level, SEL_BROKER_INFO);
    assert_ok(LOAD(f, "--name", "x")); /* and they fit together */
    sel_arena_done(&f->arena);
}

static void test_a_file_sets_every_kind_of_setting(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    assert_ok(load_yaml(f, "listen: [tcp://*:1, 'ipc:///run/b']\n"
                           "query: ipc://@q\n"
                           "journal: none\n"
                           "memory_max: 64MiB\n"
                           "record_max: 4096B\n"
                           "lease: 1min\n"
                           "beat: 250 ms\n"
                           "result_max: 7\n"
                           "level_max: memory\n"
                           "log_level: debug\n"
                           "pin: 3\n"));
    const struct sel_broker_config *c = &f->config;
    assert_int_equal(c->listen.count, 2);
    assert_string_equal(c->listen.items[1], "ipc:///run/b");
    assert_int_equal(c->query.count, 1);
    assert_string_equal(c->query.items[0], "ipc://@q");
    assert_null(c->journal);
    assert_int_equal(c->options.memory_max, 64 * MIB);
    assert_int_equal(c->options.record_max, 4096);
    assert_int_equal(c->options.lease_us, 60000000);
    assert_int_equal(c->options.beat_us, 250000);
    assert_int_equal(c->options.result_max, 7);
    assert_int_equal(c->options.level_max, SEL_LEVEL_MEMORY);
    assert_int_equal(c->log_level, SEL_BROKER_DEBUG);
    assert_int_equal(c->pin, 3);
    sel_arena_done(&f->arena);
}

static void test_an_empty_file_changes_nothing(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct sel_broker_config before = f->config;
    assert_ok(load_yaml(f, "# nothing yet\n"));
    assert_memory_equal(&f->config, &before, sizeof(before));
    sel_arena_done(&f->arena);
}

static void test_refusals_point_at_the_place_and_say_what_is_right(void **state)
{
    (void)state;
    const struct {
        const char *yaml, *said;
    } cases[] = {
        {"[]", "b.yaml:1:1: settings are expected"},
        {"memory: 1GiB", "b.yaml:1:1: there is no setting 'memory'"},
        {"memori_max: 1GiB", "b.yaml:1:1: there is no setting 'memori_max'; did you mean "
                             "memory_max?"},
        {"1: 2", "b.yaml:1:1: the name of a setting is expected"},
        {"lease: 10", "b.yaml:1:8: lease: '10' is not a time like 100ms"},
        {"lease: 10 parsecs", "b.yaml:1:8: lease: '10 parsecs' is not a time"},
        {"lease: -1s", "b.yaml:1:8: lease: '-1s' is not a time"},
        {"lease: 1us", "b.yaml:1:8: lease: 1us is out of range, 100ms to 1h"},
        {"lease: auto", "b.yaml:1:8: lease: 'auto' is not a time"},
        {"lease:", "lease: has no value; its default is 10s"},
        {"lease: [1s]", "b.yaml:1:8: lease: one value is expected, got a list"},
        {"memory_max: 99999999999999999999MiB", "is not a size like 64MiB"},
        {"memory_max: 18446744073709551615TiB", "is not a size like 64MiB"},
        {"memory_max: 1e9", "'1e9' is not a size"},
        {"result_max: many", "b.yaml:1:13: result_max: 'many' is not a whole number"},
        {"level_max: fast", "'fast' is none of auto, memory, interval, commit"},
        {"listen: []", "b.yaml:1:9: listen: at least one endpoint is needed"},
        {"listen: udp://x:1", "'udp://x:1': is no endpoint; write tcp://ADDRESS:PORT"},
        {"listen: [ 'tcp://x' ]", "b.yaml:1:11: listen: 'tcp://x': a tcp endpoint has an address"},
        {"listen: tcp://:1", "a tcp endpoint has an address and a port"},
        {"name: ''", "b.yaml:1:7: name: a text is expected"},
        {"journal: ''", "a text is expected, or none"},
        {"pin: all", "'all' is not the number of a processor, or none"},
        {"a: [", "b.yaml:"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct fixture *f = fixture_new();
        assert_code(load_yaml(f, cases[i].yaml), SEL_ECONFIG);
        if (!strstr(all_diagnostics(f), cases[i].said))
            fail_msg("%s: got '%s', expected '%s'", cases[i].yaml, all_diagnostics(f),
                     cases[i].said);
        sel_arena_done(&f->arena);
    }
}

static void test_all_faults_are_reported_in_one_run(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    assert_code(load_yaml(f, "lease: 1\nbeet: 1s\nmemory_max: x\n"), SEL_ECONFIG);
    assert_string_equal(all_diagnostics(f),
                        "b.yaml:1:8: lease: '1' is not a time like 100ms (us, ms, s, min, h, d)\n"
                        "b.yaml:2:1: there is no setting 'beet'; did you mean beat?\n"
                        "b.yaml:3:13: memory_max: 'x' is not a size like 64MiB (B, KiB, MiB, GiB, "
                        "TiB)\n");
    sel_arena_done(&f->arena);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void test_the_command_line_wins_over_the_file(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    char path[] = "/tmp/selinon-config-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)close(fd);
    write_file(path, "lease: 20s\nlisten: [tcp://a:1, tcp://b:2]\nname: file\n");
    assert_ok(LOAD(f, "--lease=30s", "--listen", "ipc://x", "--config", path, "--listen", "ipc://y",
                   "--lease", "40s"));
    assert_int_equal(f->config.options.lease_us, 40000000);
    assert_int_equal(f->config.listen.count, 2);
    assert_string_equal(f->config.listen.items[0], "ipc://x");
    assert_string_equal(f->config.listen.items[1], "ipc://y");
    assert_string_equal(f->config.name, "file");
    (void)unlink(path);
    sel_arena_done(&f->arena);
}

static void test_a_wrong_command_line_is_told_apart_from_a_wrong_configuration(void **state)
{
    (void)state;
    const struct {
        const char *args[4];
        int code;
        const char *said;
    } cases[] = {
        {{"--leese", "1s"}, SEL_EREQUEST, "there is no option --leese; did you mean --lease?"},
        {{"--memory-mix=1"}, SEL_EREQUEST, "no option --memory-mix; did you mean --memory-max?"},
        {{"-z"}, SEL_EREQUEST, "there is no option -z"},
        {{"--lease"}, SEL_EREQUEST, "option --lease needs a value"},
        {{"start"}, SEL_EREQUEST, "unexpected argument 'start'"},
        {{"--memory-max", "x"}, SEL_EREQUEST, "--memory-max: 'x' is not a size"},
        {{"--config", "/nowhere/b.yaml"}, -ENOENT, "/nowhere/b.yaml: cannot be read: "},
        {{"--beat", "9s"}, SEL_ECONFIG, "beat must be at most half of lease"},
        {{"--journal=none", "--level-max=commit"}, SEL_ECONFIG, "without a journal"},
        {{"--level-max=memory", "--level-default=commit"}, SEL_ECONFIG, "stronger than level_max"},
        {{"--window-bytes=4KiB"}, SEL_ECONFIG, "window_bytes must be at least record_max"},
        {{"--outbox-bytes-max=4KiB"}, SEL_ECONFIG, "outbox_bytes_max must be at least"},
        {{"--memory-max=4MiB"}, SEL_ECONFIG, "memory_max must be at least four times"},
        {{"--journal-size-max=64MiB", "--journal-reserve=48MiB"}, SEL_ECONFIG, "at most half"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct fixture *f = fixture_new();
        enum sel_broker_action action;
        assert_code(load_args(f, &action, cases[i].args), cases[i].code);
        if (!strstr(all_diagnostics(f), cases[i].said))
            fail_msg("got '%s', expected '%s'", all_diagnostics(f), cases[i].said);
        sel_arena_done(&f->arena);
    }
}

static void test_too_many_endpoints_are_refused(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    const char *args[2 * (SEL_BROKER_ENDPOINTS_MAX + 1) + 1] = {NULL};
    for (size_t i = 0; i <= SEL_BROKER_ENDPOINTS_MAX; i++) {
        args[2 * i] = "--listen";
        args[2 * i + 1] = "ipc://x";
    }
    char *argv[2 * SEL_BROKER_ENDPOINTS_MAX + 4] = {(char *)(uintptr_t) "b"};
    memcpy(argv + 1, args, sizeof(args));
    enum sel_broker_action action;
    assert_code(sel_broker_config_load(&f->config, &f->arena, 2 * SEL_BROKER_ENDPOINTS_MAX + 3,
                                       argv, &action, &f->diag),
                SEL_EREQUEST);
    assert_non_null(strstr(all_diagnostics(f), "one endpoint too many"));
    sel_arena_done(&f->arena);
}

static void test_help_and_version_work_beside_faults(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    enum sel_broker_action action;
    assert_ok(load_args(f, &action, (const char *const[]){"--help", "--lease", "x", NULL}));
    assert_int_equal(action, SEL_BROKER_HELP);
    assert_ok(load_args(f, &action, (const char *const[]){"--version", NULL}));
    assert_int_equal(action, SEL_BROKER_VERSION);
    sel_arena_done(&f->arena);
}

/* What --print-config writes can be given back, and means the same. */
static void test_what_is_printed_is_a_file_that_means_the_same(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct sel_buf first = {0}, second = {0};
    assert_ok(LOAD(f, "--listen", "tcp://*:1", "--listen", "ipc:///a b'c", "--memory-max",
                   "1048577KiB", "--result-ttl", "90s", "--name", "it's: #1", "--pin", "0",
                   "--journal-reserve", "65537B"));
    sel_broker_config_print(&f->config, &first);
    assert_ok(sel_buf_error(&first));
    struct sel_broker_config other;
    sel_broker_config_init(&other);
    assert_ok(sel_broker_config_yaml(&other, &f->arena, "p.yaml", sel_buf_str(&first), &f->diag));
    sel_broker_config_print(&other, &second);
    assert_str_is(sel_buf_str(&second), sel_buf_cstr(&first));
    assert_non_null(strstr(sel_buf_cstr(&first), "memory_max: 1048577KiB\n"));
    assert_non_null(strstr(sel_buf_cstr(&first), "result_ttl: 90s\n"));
    assert_non_null(strstr(sel_buf_cstr(&first), "beat: auto\n"));
    sel_buf_done(&first);
    sel_buf_done(&second);
    sel_arena_done(&f->arena);
}

static void test_every_setting_is_in_the_help(void **state)
{
    (void)state;
    struct sel_buf help = {0};
    sel_broker_config_help(&help);
    for (uint32_t i = 0; i < sel_broker_setting_count; i++) {
        char option[64];
        (void)snprintf(option, sizeof(option), "  --%s ", sel_broker_settings[i].name);
        for (char *p = option; *p; p++)
            *p = *p == '_' ? '-' : *p;
        if (!strstr(sel_buf_cstr(&help), option))
            fail_msg("%s is not in --help", option);
    }
    sel_buf_done(&help);
}

/* The table of docs/operations.md is the one that the program works by. */
static void test_every_setting_is_documented(void **state)
{
    (void)state;
    struct sel_buf rows = {0}, page = {0};
    char piece[4096];
    FILE *file = fopen("docs/operations.md", "r");
    assert_non_null(file);
    for (size_t n; (n = fread(piece, 1, sizeof(piece), file)) > 0;)
        sel_buf_put(&page, piece, n);
    (void)fclose(file);
    sel_broker_config_document(&rows);
    const char *text = sel_buf_cstr(&page);
    char *row = (char *)(uintptr_t)sel_buf_cstr(&rows), *rest = NULL;
    for (row = strtok_r(row, "\n", &rest); row; row = strtok_r(NULL, "\n", &rest)) {
        if (!strstr(text, row))
            fail_msg("docs/operations.md lacks the row\n%s", row);
    }
    sel_buf_done(&rows);
    sel_buf_done(&page);
}

static int load_all(void *ctx)
{
    (void)ctx;
    struct fixture *f = fixture_new();
    int r = LOAD(f, "--listen", "tcp://*:1", "--name", "x", "--lease", "3s");
    sel_arena_done(&f->arena);
    return r;
}

static void test_a_lack_of_memory_is_reported(void **state)
{
    (void)state;
    sel_test_each_alloc_fails(load_all, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_those_of_the_documentation),
        cmocka_unit_test(test_a_file_sets_every_kind_of_setting),
        cmocka_unit_test(test_an_empty_file_changes_nothing),
        cmocka_unit_test(test_refusals_point_at_the_place_and_say_what_is_right),
        cmocka_unit_test(test_all_faults_are_reported_in_one_run),
        cmocka_unit_test(test_the_command_line_wins_over_the_file),
        cmocka_unit_test(test_a_wrong_command_line_is_told_apart_from_a_wrong_configuration),
        cmocka_unit_test(test_too_many_endpoints_are_refused),
        cmocka_unit_test(test_help_and_version_work_beside_faults),
        cmocka_unit_test(test_what_is_printed_is_a_file_that_means_the_same),
        cmocka_unit_test(test_every_setting_is_in_the_help),
        cmocka_unit_test(test_every_setting_is_documented),
        cmocka_unit_test(test_a_lack_of_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
