#include "worker/mock_files.h"

#include "worker/mock.h"
#include "worker/mock_report.h"
#include "worker/mock_state.h"

static int share(struct sel_mock_files *files, const char *path, struct sel_error *err)
{
    int r = sel_mock_state_open(path, &files->state, err);
    if (r < 0)
        return r;
    sel_mock_share(files->mock, files->state);
    files->results = sel_arena_printf(&files->arena, "%s.results", path);
    return files->results ? 0
                          : sel_error_set(err, SEL_ENOMEM, (struct sel_pos){path, 0, 0}, "%s",
                                          sel_error_text(SEL_ENOMEM));
}

int sel_mock_files_open(struct sel_mock_files *files, const struct sel_system *system,
                        const char *script, const char *state, const char *report,
                        struct sel_error *err)
{
    *files = (struct sel_mock_files){0};
    int r = sel_mock_load(system, script, &files->arena, &files->mock, err);
    if (r == 0 && state)
        r = share(files, state, err);
    if (r == 0 && report)
        r = sel_mock_report_open(report, &files->report, err);
    if (r == 0 && report)
        files->observer = sel_mock_report_observer(files->report);
    return r;
}

void sel_mock_files_done(struct sel_mock_files *files)
{
    files->mock = sel_mock_free(files->mock);
    files->state = sel_mock_state_close(files->state);
    files->report = sel_mock_report_close(files->report);
    sel_arena_done(&files->arena);
    *files = (struct sel_mock_files){0};
}
