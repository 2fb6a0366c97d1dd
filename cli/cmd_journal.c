/* `journal`: looks into the journal of a broker that is not running, checks it, makes it smaller.
 *
 * A journal may be larger than memory: batches are printed as they come. */
#include <inttypes.h>
#include <string.h>

#include "broker/mutation.h"
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/table.h"
#include "core/arena.h"
#include "core/json.h"
#include "storage/crc.h"
#include "storage/journal.h"

struct values {
    const char *action, *path;
    int64_t from;
    bool records, json;
};

static const char *const actions[] = {"show", "verify", "compact", NULL};

#define MEMBER(name) .offset = offsetof(struct values, name)

static const struct sel_cli_option options[] = {
    {.name = "ACTION",
     .is_word = true,
     .kind = SEL_CLI_CHOICE,
     .required = true,
     MEMBER(action),
     .choices = actions,
     .help = "show: list the batches; verify: check everything; compact: write it anew without "
             "the room that is free"},
    {.name = "PATH",
     .is_word = true,
     .kind = SEL_CLI_FOLDER,
     .required = true,
     MEMBER(path),
     .help = "the folder of the journal"},
    {.name = "from",
     .kind = SEL_CLI_INT,
     MEMBER(from),
     .help = "show: begin with this batch; default the first"},
    {.name = "records",
     .kind = SEL_CLI_FLAG,
     MEMBER(records),
     .help = "show: list also what is in each batch; verify: check that it can be read"},
    {.name = "json", .kind = SEL_CLI_FLAG, MEMBER(json), .help = "print one JSON object"},
};

/* A walk, and what it has come to. */
struct listing {
    const struct sel_cli *cli;
    const struct values *values;
    struct sel_arena arena; /* of one batch */
    struct sel_buf line;
    uint64_t batches, bytes, records;
};

/* ---- one record ---- */

static struct sel_value id_value(struct sel_arena *arena, struct sel_id id)
{
    char text[SEL_ID_TEXT_SIZE];
    return sel_value_from_c(sel_arena_strdup(arena, sel_str_c(sel_id_format(id, text))));
}

static int make_record(struct sel_arena *arena, const struct sel_mutation *m, struct sel_value *ret)
{
    struct sel_value_builder b;
    sel_value_begin_map(&b, arena);
    sel_value_put_c(&b, "type", sel_value_from_c(sel_mutation_name(m->type)));
    sel_value_put_c(&b, "id", id_value(arena, m->id));
    sel_value_put_c(&b, "sequence", sel_value_from_u64(m->sequence));
    if (m->name.n > 0)
        sel_value_put_c(&b, "name", sel_value_from_str(m->name));
    if (m->key.n > 0)
        sel_value_put_c(&b, "key", sel_value_from_str(m->key));
    sel_value_put_c(&b, "try", sel_value_from_u64(m->try_count));
    sel_value_put_c(&b, "code", sel_value_from_u64(m->code));
    sel_value_put_c(&b, "flags", sel_value_from_u64(m->flags));
    sel_value_put_c(&b, "unix_us", sel_value_from_i64(m->unix_us));
    sel_value_put_c(&b, "payload_bytes", sel_value_from_u64(m->payload.n));
    return sel_value_end(&b, ret);
}

static void print_record(struct listing *listing, const struct sel_mutation *m)
{
    char id[SEL_ID_TEXT_SIZE];
    struct sel_value name = sel_value_from_str(m->name);
    struct sel_value bytes = sel_value_from_u64(m->payload.n);
    const char *clean = sel_cli_table_cell(&listing->arena, "name", &name);
    const char *size = sel_cli_table_cell(&listing->arena, "bytes", &bytes);
    fprintf(listing->cli->out, "%14s%-8s%s  %s%s", "", sel_mutation_name(m->type),
            sel_id_format(m->id, id), clean ? clean : "?", m->name.n > 0 ? "  " : "");
    fprintf(listing->cli->out, "sequence %" PRIu64 ", try %u, %s\n", m->sequence, m->try_count,
            size ? size : "?");
}

static int list_records(struct listing *listing, struct sel_str batch, struct sel_error *err)
{
    struct sel_mutation m;
    int r;
    while ((r = sel_mutation_next(&batch, &m, err)) > 0) {
        listing->records++;
        if (strcmp(listing->values->action, "show") == 0)
            print_record(listing, &m);
    }
    return r;
}

static int put_records(struct listing *listing, struct sel_str batch, struct sel_value *ret,
                       struct sel_error *err)
{
    struct sel_value_builder b;
    struct sel_mutation m;
    int r;
    sel_value_begin_list(&b, &listing->arena);
    while ((r = sel_mutation_next(&batch, &m, err)) > 0) {
        struct sel_value record;
        r = make_record(&listing->arena, &m, &record);
        if (r < 0)
            return sel_error_set(err, r, (struct sel_pos){0}, "%s", sel_error_text(r));
        sel_value_add(&b, record);
        listing->records++;
    }
    if (r == 0)
        r = sel_value_end(&b, ret);
    return r;
}

/* ---- one batch ---- */

static void print_batch(struct listing *listing, uint64_t seq, struct sel_str batch)
{
    char bytes[SEL_CLI_FORMAT_SIZE];
    if (listing->batches == 0)
        fprintf(listing->cli->out, "%12s  %14s  %s\n", "BATCH", "BYTES", "CHECKSUM");
    fprintf(listing->cli->out, "%12" PRIu64 "  %14s  %08" PRIx32 "\n", seq,
            sel_cli_format_count(batch.n, bytes), sel_crc32c(0, batch.p, batch.n));
}

static int print_batch_json(struct listing *listing, uint64_t seq, struct sel_str batch,
                            struct sel_error *err)
{
    struct sel_value_builder b;
    struct sel_value value, records;
    char crc[16];
    int r = 0;
    (void)snprintf(crc, sizeof(crc), "%08" PRIx32, sel_crc32c(0, batch.p, batch.n));
    sel_value_begin_map(&b, &listing->arena);
    sel_value_put_c(&b, "batch", sel_value_from_u64(seq));
    sel_value_put_c(&b, "bytes", sel_value_from_u64(batch.n));
    sel_value_put_c(&b, "checksum", sel_value_from_c(crc));
    if (listing->values->records) {
        r = put_records(listing, batch, &records, err);
        if (r == 0)
            sel_value_put_c(&b, "records", records);
    }
    if (r < 0)
        return r;
    r = sel_value_end(&b, &value);
    sel_buf_clear(&listing->line);
    if (r == 0)
        sel_json_write(&value, 0, &listing->line);
    if (r == 0)
        r = sel_buf_error(&listing->line);
    if (r < 0)
        return sel_error_set(err, r, (struct sel_pos){0}, "%s", sel_error_text(r));
    fprintf(listing->cli->out, "%s%.*s", listing->batches > 0 ? ",\n" : "",
            SEL_STR_ARG(sel_buf_str(&listing->line)));
    return 0;
}

static int visit(void *ctx, uint64_t seq, struct sel_str batch, struct sel_error *err)
{
    struct listing *listing = ctx;
    bool is_show = strcmp(listing->values->action, "show") == 0;
    int r = 0;
    sel_arena_reset(&listing->arena);
    if (is_show && listing->values->json) {
        r = print_batch_json(listing, seq, batch, err);
    } else {
        if (is_show)
            print_batch(listing, seq, batch);
        if (listing->values->records)
            r = list_records(listing, batch, err);
    }
    if (r < 0) {
        char text[SEL_ERROR_TEXT_MAX];
        (void)snprintf(text, sizeof(text), "%s", err->text);
        return sel_error_set(err, r, (struct sel_pos){0}, "batch %" PRIu64 ": %.900s", seq, text);
    }
    listing->batches++;
    listing->bytes += batch.n;
    return 0;
}

static int walk(struct listing *listing, struct sel_journal_stats *stats, struct sel_error *err)
{
    const struct values *values = listing->values;
    const struct sel_journal_lmdb_options open = {.path = values->path, .read_only = true};
    struct sel_journal *j;
    int r = sel_journal_lmdb_open(&open, &j, err);
    if (r < 0)
        return r;
    j->ops->stats(j, stats);
    if (strcmp(values->action, "show") == 0 || values->records)
        r = j->ops->walk(j, (uint64_t)values->from, visit, listing, err);
    j->ops->close(j);
    return r;
}

static const char *size_text(struct listing *listing, uint64_t bytes)
{
    struct sel_value value = sel_value_from_u64(bytes);
    const char *text = sel_cli_table_cell(&listing->arena, "bytes", &value);
    return text ? text : "?";
}

/* ---- the actions ---- */

static int show(struct listing *listing)
{
    const struct sel_cli *cli = listing->cli;
    struct sel_journal_stats stats = {0};
    struct sel_error err;
    char batches[SEL_CLI_FORMAT_SIZE];
    bool json = listing->values->json;
    if (json)
        fputs("{\"batches\":[", cli->out);
    int r = walk(listing, &stats, &err);
    if (json)
        fprintf(cli->out,
                "],\"ok\":%s,\"first\":%" PRIu64 ",\"last\":%" PRIu64 ",\"bytes_live\":%" PRIu64
                ",\"bytes_used\":%" PRIu64 "}\n",
                r == 0 ? "true" : "false", stats.first, stats.last, stats.bytes_live,
                stats.bytes_used);
    if (r < 0)
        return sel_cli_fail_with(cli, &err);
    if (!json)
        fprintf(cli->out, "%s batches with %s; the journal uses %s\n",
                sel_cli_format_count(listing->batches, batches), size_text(listing, listing->bytes),
                size_text(listing, stats.bytes_used));
    return SEL_CLI_OK;
}

static int print_verdict_json(struct listing *listing, int r, const struct sel_journal_stats *stats,
                              const struct sel_error *err)
{
    struct sel_value_builder b;
    struct sel_value value;
    sel_value_begin_map(&b, &listing->arena);
    sel_value_put_c(&b, "ok", sel_value_from_bool(r == 0));
    if (r == 0) {
        sel_value_put_c(&b, "first", sel_value_from_u64(stats->first));
        sel_value_put_c(&b, "last", sel_value_from_u64(stats->last));
        sel_value_put_c(&b, "bytes_live", sel_value_from_u64(stats->bytes_live));
        sel_value_put_c(&b, "bytes_used", sel_value_from_u64(stats->bytes_used));
        if (listing->values->records)
            sel_value_put_c(&b, "records", sel_value_from_u64(listing->records));
    } else {
        sel_value_put_c(&b, "code", sel_value_from_c(sel_error_name(r)));
        sel_value_put_c(&b, "error", sel_value_from_c(err->text));
    }
    int made = sel_value_end(&b, &value);
    sel_buf_clear(&listing->line);
    if (made == 0)
        sel_json_write(&value, 0, &listing->line);
    if (made == 0)
        made = sel_buf_error(&listing->line);
    if (made < 0)
        return sel_cli_fail(listing->cli, "%s", sel_error_text(made));
    fprintf(listing->cli->out, "%s\n", sel_buf_cstr(&listing->line));
    return r == 0 ? SEL_CLI_OK : SEL_CLI_FAILED;
}

static int verify(struct listing *listing)
{
    struct sel_journal_stats stats = {0};
    struct sel_error err;
    char batches[SEL_CLI_FORMAT_SIZE], records[SEL_CLI_FORMAT_SIZE];
    int r = walk(listing, &stats, &err);
    sel_arena_reset(&listing->arena);
    if (listing->values->json)
        return print_verdict_json(listing, r, &stats, &err);
    if (r < 0)
        return sel_cli_fail_with(listing->cli, &err);
    uint64_t count = stats.last > 0 ? stats.last - stats.first + 1 : 0;
    fprintf(listing->cli->out, "The journal is right: %s batches with %s",
            sel_cli_format_count(count, batches), size_text(listing, stats.bytes_live));
    if (listing->values->records)
        fprintf(listing->cli->out, ", %s records", sel_cli_format_count(listing->records, records));
    fputs(".\n", listing->cli->out);
    return SEL_CLI_OK;
}

static int compact(struct listing *listing)
{
    struct sel_error err;
    uint64_t before, after;
    if (sel_journal_lmdb_compact(listing->values->path, &before, &after, &err) < 0)
        return sel_cli_fail_with(listing->cli, &err);
    if (listing->values->json)
        fprintf(listing->cli->out, "{\"before\":%" PRIu64 ",\"after\":%" PRIu64 "}\n", before,
                after);
    else
        fprintf(listing->cli->out, "%s before, %s after.\n", size_text(listing, before),
                size_text(listing, after));
    return SEL_CLI_OK;
}

static int run(const struct sel_cli *cli, const void *p)
{
    const struct values *values = p;
    struct listing listing = {.cli = cli, .values = values};
    int status;
    if (strcmp(values->action, "show") == 0)
        status = show(&listing);
    else if (strcmp(values->action, "verify") == 0)
        status = verify(&listing);
    else
        status = compact(&listing);
    sel_buf_done(&listing.line);
    sel_arena_done(&listing.arena);
    return sel_cli_finish(cli, status);
}

const struct sel_cli_command sel_cli_cmd_journal = {
    .name = "journal",
    .about = "Show, verify or compact the journal of a broker that is not running.",
    .more = "Only `compact` writes. A damaged journal is named, with exit status 1.\n",
    .options = options,
    .option_count = SEL_COUNT(options),
    .values_size = sizeof(struct values),
    .run = run,
};
