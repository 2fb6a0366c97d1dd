#include "cli/options.h"

#include "tests/support/test.h"

struct values {
    bool check;
    int verbose;
    const char *name, *file, *level;
    struct sel_cli_texts paths, names;
    int64_t count;
    double seconds;
};

static const char *const levels[] = {"low", "high", NULL};

static const struct sel_cli_option options[] = {
    {.name = "check",
     .letter = 'k',
     .kind = SEL_CLI_FLAG,
     .offset = offsetof(struct values, check),
     .env = {"T_CHECK"},
     .help = "check"},
    {.name = "verbose",
     .letter = 'v',
     .kind = SEL_CLI_COUNT,
     .offset = offsetof(struct values, verbose),
     .help = "verbose"},
    {.name = "name",
     .letter = 'n',
     .kind = SEL_CLI_TEXT,
     .required = true,
     .offset = offsetof(struct values, name),
     .env = {"T_NAME", "T_OTHER_NAME"},
     .help = "name"},
    {.name = "file", .kind = SEL_CLI_FILE, .offset = offsetof(struct values, file), .help = "file"},
    {.name = "paths",
     .letter = 'f',
     .kind = SEL_CLI_PATHS,
     .offset = offsetof(struct values, paths),
     .env = {"T_PATHS"},
     .help = "paths"},
    {.name = "tasks",
     .kind = SEL_CLI_NAMES,
     .offset = offsetof(struct values, names),
     .env = {"T_TASKS"},
     .help = "tasks"},
    {.name = "count",
     .letter = 'c',
     .kind = SEL_CLI_INT,
     .offset = offsetof(struct values, count),
     .min = 1,
     .max = 8,
     .help = "count"},
    {.name = "seconds",
     .kind = SEL_CLI_NUMBER,
     .offset = offsetof(struct values, seconds),
     .help = "seconds"},
    {.name = "level",
     .kind = SEL_CLI_CHOICE,
     .choices = levels,
     .offset = offsetof(struct values, level),
     .env = {"T_LEVEL"},
     .help = "level"},
};

static const struct sel_cli_option_set set = {options, SEL_COUNT(options), false};

/* Variables as "NAME=value", ended by NULL. */
static const char *find_variable(void *ctx, const char *name)
{
    size_t n = strlen(name);
    for (const char *const *v = ctx; v && *v; v++) {
        if (strncmp(*v, name, n) == 0 && (*v)[n] == '=')
            return *v + n + 1;
    }
    return NULL;
}

struct parsed {
    struct sel_arena arena;
    struct values values;
    struct sel_error err;
    int r;
};

#define WORDS_MAX 12

/* `words` are separated by single spaces. */
static void parse_set(struct parsed *p, const struct sel_cli_option_set *of, const char *words,
                      const char *const *variables)
{
    static char buffer[512];
    char *argv[WORDS_MAX + 1] = {(char *)(uintptr_t) "program"};
    int argc = 1;
    *p = (struct parsed){0};
    (void)snprintf(buffer, sizeof(buffer), "%s", words);
    for (char *at = buffer; *at && argc < WORDS_MAX;) {
        argv[argc++] = at;
        at += strcspn(at, " ");
        if (*at)
            *at++ = '\0';
    }
    struct sel_cli_environment environment = {find_variable, (void *)(uintptr_t)variables};
    p->r = sel_cli_options_parse(of, argc, argv, &environment, &p->arena, &p->values, &p->err);
}

static void parse(struct parsed *p, const char *words, const char *const *variables)
{
    parse_set(p, &set, words, variables);
}

static void done(struct parsed *p)
{
    sel_arena_done(&p->arena);
}

static void test_values_are_taken_in_every_spelling(void **state)
{
    (void)state;
    struct parsed p;
    parse(&p, "-n a -kvv --verbose --count=3 --seconds 0.5 --level high --file /dev/null", NULL);
    assert_int_equal(p.r, 12); /* all words */
    assert_true(p.values.check);
    assert_int_equal(p.values.verbose, 3);
    assert_string_equal(p.values.name, "a");
    assert_int_equal(p.values.count, 3);
    assert_true(p.values.seconds == 0.5);
    assert_string_equal(p.values.level, "high");
    assert_string_equal(p.values.file, "/dev/null");
    done(&p);

    parse(&p, "-nb -c8 --che --name c", NULL); /* cut, attached, given twice */
    assert_int_equal(p.r, 6);
    assert_string_equal(p.values.name, "c");
    assert_int_equal(p.values.count, 8);
    assert_true(p.values.check);
    done(&p);
}

static void test_a_list_takes_the_words_behind_it(void **state)
{
    (void)state;
    struct parsed p;
    parse(&p, "-f / /dev /dev/null -n a -f /proc", NULL);
    assert_true(p.r > 0);
    assert_int_equal(p.values.paths.count, 4);
    assert_string_equal(p.values.paths.items[0], "/");
    assert_string_equal(p.values.paths.items[2], "/dev/null");
    assert_string_equal(p.values.paths.items[3], "/proc");
    done(&p);

    parse(&p, "-n a --tasks x,y,,z --tasks w", NULL);
    assert_true(p.r > 0);
    assert_int_equal(p.values.names.count, 4);
    assert_string_equal(p.values.names.items[1], "y");
    assert_string_equal(p.values.names.items[3], "w");
    done(&p);
}

static void test_the_command_line_wins_over_variables_in_their_order(void **state)
{
    (void)state;
    struct parsed p;
    const char *const both[] = {"T_OTHER_NAME=second", "T_NAME=first", NULL};
    parse(&p, "-n word", both);
    assert_string_equal(p.values.name, "word");
    done(&p);
    parse(&p, "", both);
    assert_true(p.r > 0);
    assert_string_equal(p.values.name, "first");
    done(&p);
    const char *const empty[] = {"T_NAME=", "T_OTHER_NAME=second", NULL};
    parse(&p, "", empty);
    assert_string_equal(p.values.name, "second");
    done(&p);
}

static void test_variables_of_flags_and_lists(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool is_on;
    } flags[] = {{"1", true},  {"true", true},   {"YES", true}, {"on", true},
                 {"0", false}, {"False", false}, {"no", false}, {"off", false}};
    struct parsed p;
    for (size_t i = 0; i < SEL_COUNT(flags); i++) {
        char text[32];
        (void)snprintf(text, sizeof(text), "T_CHECK=%s", flags[i].text);
        const char *const variables[] = {text, NULL};
        parse(&p, "-n a", variables);
        assert_true(p.r > 0);
        assert_int_equal(p.values.check, flags[i].is_on);
        done(&p);
    }
    const char *const lists[] = {"T_PATHS=/dev:/proc:", "T_TASKS=a,b", "T_LEVEL=low", NULL};
    parse(&p, "-n a", lists);
    assert_true(p.r > 0);
    assert_int_equal(p.values.paths.count, 2);
    assert_string_equal(p.values.paths.items[1], "/proc");
    assert_int_equal(p.values.names.count, 2);
    assert_string_equal(p.values.level, "low");
    done(&p);
    parse(&p, "-n a -f /", lists); /* not both together */
    assert_int_equal(p.values.paths.count, 1);
    done(&p);
}

static void test_refusals_say_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *words, *in_text;
    } cases[] = {
        {"", "-n, --name is missing"},
        {"-n", "-n, --name needs a value"},
        {"--nmae x", "did you mean --name?"},
        {"-x", "no option -x"},
        {"--c 1", "--c could be one of several"},
        {"-n a extra", "unexpected argument 'extra'"},
        {"-n a --check=1", "-k, --check takes no value"},
        {"-n a -c 0", "'0' is below 1"},
        {"-n a -c 9", "'9' is above 8"},
        {"-n a -c 1x", "'1x' is no whole number"},
        {"-n a -c 99999999999999999999", "is too large"},
        {"-n a --seconds -1", "'-1' is below 0"},
        {"-n a --seconds nan", "'nan' is no number"},
        {"-n a --seconds inf", "'inf' is no number"},
        {"-n a --level middle", "'middle' is none of low, high"},
        {"-n a --file /does/not/exist", "does not exist"},
        {"-n a --file /dev", "is a folder"},
        {"-n a -f /dev /does/not/exist", "does not exist"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct parsed p;
        parse(&p, cases[i].words, NULL);
        if (p.r != SEL_EREQUEST || !strstr(p.err.text, cases[i].in_text))
            fail_msg("'%s': %d '%s'", cases[i].words, p.r, p.err.text);
        done(&p);
    }
    struct parsed p;
    const char *const variables[] = {"T_CHECK=perhaps", NULL};
    parse(&p, "-n a", variables);
    assert_int_equal(p.r, SEL_EREQUEST);
    assert_non_null(strstr(p.err.text, "T_CHECK"));
    done(&p);
}

static void test_help_wins_over_what_is_wrong_beside_it(void **state)
{
    (void)state;
    struct parsed p;
    parse(&p, "-c 0 --help", NULL);
    assert_int_equal(p.r, SEL_ECANCELED);
    done(&p);
    parse(&p, "-h", NULL);
    assert_int_equal(p.r, SEL_ECANCELED);
    done(&p);
}

static void test_general_options_end_at_the_command(void **state)
{
    (void)state;
    static const struct sel_cli_option_set general = {&options[0], 2, true};
    struct parsed p;
    parse_set(&p, &general, "-v command -k", NULL);
    assert_int_equal(p.r, 2);
    assert_int_equal(p.values.verbose, 1);
    assert_false(p.values.check);
    done(&p);
}

static void test_help_lists_what_is_not_hidden(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    sel_cli_options_print(&set, out);
    assert_int_equal(fclose(out), 0);
    assert_non_null(strstr(text, "-n, --name TEXT"));
    assert_non_null(strstr(text, "(required) [T_NAME] [T_OTHER_NAME]"));
    assert_non_null(strstr(text, "--help"));
    for (const char *line = text, *end; (end = strchr(line, '\n')); line = end + 1)
        assert_true(end - line <= 100);
    free(text);
}

static void test_words_stand_for_themselves_in_order(void **state)
{
    (void)state;
    static const struct sel_cli_option words[] = {
        {.name = "LEVEL",
         .is_word = true,
         .kind = SEL_CLI_CHOICE,
         .choices = levels,
         .required = true,
         .offset = offsetof(struct values, level)},
        {.name = "check", .kind = SEL_CLI_FLAG, .offset = offsetof(struct values, check)},
        {.name = "NAME",
         .is_word = true,
         .kind = SEL_CLI_TEXT,
         .offset = offsetof(struct values, name)},
    };
    static const struct sel_cli_option_set with_words = {words, SEL_COUNT(words), false};
    struct parsed p;
    parse_set(&p, &with_words, "high --check some", NULL);
    assert_int_equal(p.r, 4);
    assert_string_equal(p.values.level, "high");
    assert_string_equal(p.values.name, "some");
    assert_true(p.values.check);
    done(&p);
    const struct {
        const char *words, *text;
    } cases[] = {
        {"", "LEVEL is missing"},
        {"middle", "LEVEL: 'middle' is none of low, high"},
        {"low a b", "unexpected argument 'b'"},
        {"low --LEVEL high", "there is no option --LEVEL"},
        {"low --NAM x", "there is no option --NAM"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        parse_set(&p, &with_words, cases[i].words, NULL);
        assert_code(p.r, SEL_EREQUEST);
        assert_string_equal(p.err.text, cases[i].text);
        done(&p);
    }
}

static void test_a_list_of_words_takes_all_that_follow(void **state)
{
    (void)state;
    static const struct sel_cli_option words[] = {
        {.name = "LEVEL",
         .is_word = true,
         .kind = SEL_CLI_TEXT,
         .offset = offsetof(struct values, level)},
        {.name = "NAMES",
         .is_word = true,
         .kind = SEL_CLI_NAMES,
         .offset = offsetof(struct values, names)},
        {.name = "check", .kind = SEL_CLI_FLAG, .offset = offsetof(struct values, check)},
    };
    static const struct sel_cli_option_set with_words = {words, SEL_COUNT(words), false};
    struct parsed p;
    parse_set(&p, &with_words, "low a b,c --check d", NULL);
    assert_string_equal(p.values.level, "low");
    assert_int_equal(p.values.names.count, 4);
    assert_string_equal(p.values.names.items[0], "a");
    assert_string_equal(p.values.names.items[3], "d");
    assert_true(p.values.check);
    done(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_are_taken_in_every_spelling),
        cmocka_unit_test(test_a_list_takes_the_words_behind_it),
        cmocka_unit_test(test_words_stand_for_themselves_in_order),
        cmocka_unit_test(test_a_list_of_words_takes_all_that_follow),
        cmocka_unit_test(test_the_command_line_wins_over_variables_in_their_order),
        cmocka_unit_test(test_variables_of_flags_and_lists),
        cmocka_unit_test(test_refusals_say_what_is_wrong),
        cmocka_unit_test(test_help_wins_over_what_is_wrong_beside_it),
        cmocka_unit_test(test_general_options_end_at_the_command),
        cmocka_unit_test(test_help_lists_what_is_not_hidden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
