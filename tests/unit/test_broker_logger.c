/* The log of a broker: one line an event, whatever a peer is called, however many there are. */
#include "tests/support/test.h"

#include <stdio.h>
#include <unistd.h>

#include "broker/logger.h"

#define NOON (INT64_C(1772366400) * 1000000 + 123456) /* 2026-03-01T12:00:00.123456Z */

struct fixture {
    struct sel_broker_logger logger;
    int fds[2];
    char text[65536];
};

static struct fixture *start(enum sel_broker_log level)
{
    static struct fixture f;
    assert_int_equal(pipe(f.fds), 0);
    sel_broker_logger_init(&f.logger, f.fds[1], level);
    return &f;
}

static const char *end(struct fixture *f)
{
    (void)close(f->fds[1]);
    size_t n = 0;
    ssize_t got;
    while ((got = read(f->fds[0], f->text + n, sizeof(f->text) - 1 - n)) > 0)
        n += (size_t)got;
    f->text[n] = '\0';
    (void)close(f->fds[0]);
    return f->text;
}

static void test_a_line_has_time_level_event_and_text(void **state)
{
    (void)state;
    struct fixture *f = start(SEL_BROKER_INFO);
    sel_broker_logger_put_at(&f->logger, NOON, SEL_BROKER_INFO, "session.new", "name=\"a\" n=1");
    sel_broker_logger_put_at(&f->logger, NOON, SEL_BROKER_ERROR, "broker.end", "");
    assert_string_equal(end(f), "2026-03-01T12:00:00.123Z info session.new name=\"a\" n=1\n"
                                "2026-03-01T12:00:00.123Z error broker.end\n");
}

static void test_what_is_below_the_level_is_not_written(void **state)
{
    (void)state;
    struct fixture *f = start(SEL_BROKER_WARNING);
    sel_broker_logger_put(&f->logger, SEL_BROKER_DEBUG, "a", "n=%d", 1);
    sel_broker_logger_log(&f->logger, SEL_BROKER_INFO, "b", "");
    sel_broker_logger_put(&f->logger, SEL_BROKER_WARNING, "c", "n=%d", 2);
    assert_non_null(strstr(end(f), "Z warning c n=2\n"));
    assert_null(strstr(f->text, " a "));
    assert_null(strstr(f->text, " b "));
}

/* Names of peers are in texts: neither a second line nor a terminal's escape comes out of them. */
static void test_a_line_stays_a_line(void **state)
{
    (void)state;
    struct fixture *f = start(SEL_BROKER_INFO);
    char large[4096];
    memset(large, 'x', sizeof(large) - 1);
    large[sizeof(large) - 1] = '\0';
    sel_broker_logger_put_at(&f->logger, NOON, SEL_BROKER_INFO, "e", "name=\"a\nb\033[2J\x7f\"");
    sel_broker_logger_put_at(&f->logger, NOON, SEL_BROKER_INFO, "e", large);
    const char *text = end(f);
    assert_non_null(strstr(text, "e name=\"a?b?[2J?\"\n"));
    size_t n = strlen(text);
    assert_in_range(n, 2000, 2300); /* the second is cut */
    assert_int_equal(text[n - 1], '\n');
    assert_int_equal(text[n - 2], 'x');
}

static void test_a_flood_is_cut_and_counted_but_errors_pass(void **state)
{
    (void)state;
    struct fixture *f = start(SEL_BROKER_INFO);
    for (int i = 0; i < SEL_BROKER_LOG_PER_SECOND + 7; i++)
        sel_broker_logger_put_at(&f->logger, NOON, SEL_BROKER_INFO, "flood", "");
    sel_broker_logger_put_at(&f->logger, NOON, SEL_BROKER_ERROR, "journal.failed", "");
    sel_broker_logger_put_at(&f->logger, NOON + 1000000, SEL_BROKER_INFO, "later", "");
    const char *text = end(f);
    uint32_t lines = 0;
    for (const char *p = text; (p = strstr(p, " flood\n")) != NULL; p++)
        lines++;
    assert_int_equal(lines, SEL_BROKER_LOG_PER_SECOND);
    assert_non_null(strstr(text, "error journal.failed\n"));
    assert_non_null(strstr(text, ":01.123Z warning log.left_out lines=7\n"));
    assert_non_null(strstr(text, "info later\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_line_has_time_level_event_and_text),
        cmocka_unit_test(test_what_is_below_the_level_is_not_written),
        cmocka_unit_test(test_a_line_stays_a_line),
        cmocka_unit_test(test_a_flood_is_cut_and_counted_but_errors_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
