/* worker/mock_files.h - a mock with all that belongs to it, from the command line. */
#ifndef SEL_WORKER_MOCK_FILES_H
#define SEL_WORKER_MOCK_FILES_H

#include "core/arena.h"
#include "core/error.h"
#include "core/system.h"
#include "worker/executor.h"

struct sel_mock;
struct sel_mock_report;
struct sel_mock_state;

/* Zeroed: none. */
struct sel_mock_files {
    struct sel_arena arena;
    struct sel_mock *mock;
    struct sel_mock_state *state;
    struct sel_mock_report *report;
    const char *results;                          /* for struct sel_executor_options */
    const struct sel_executor_observer *observer; /* the same */
};

/* Loads `script` and opens the others, which may be NULL. Errors as of sel_mock_load,
 * sel_mock_state_open and sel_mock_report_open; then `*files` is to be ended too. */
int sel_mock_files_open(struct sel_mock_files *files, const struct sel_system *system,
                        const char *script, const char *state, const char *report,
                        struct sel_error *err) SEL_WARN_UNUSED;
void sel_mock_files_done(struct sel_mock_files *files);

#endif
