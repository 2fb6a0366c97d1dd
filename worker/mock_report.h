/* worker/mock_report.h - what an observer of the engine sees, as lines of JSON in a file.
 *
 * Each is one object and one write to its end, so that all workers of a cluster may share the file.
 * SIGKILL can cut a write short (Linux looks for it between two pages), as if what the line tells
 * of had not been seen; so that the next line is whole, each has a line end before it too. A reader
 * passes over empty lines and, when workers were killed, over those that are no JSON. `what` says
 * which:
 *
 *   execution  task, flow, id, try, node_args, parents, outcome: "success" with `result`, "failure"
 *              with `error`, "retry" with `error` and `countdown`, or "returned": it was cancelled
 *              and goes elsewhere. What is delivered twice is there twice, under one id and try
 *   stored     storage, task, storage_task_name, flow, result
 *   flow       flow, id, node_args, outcome, finished_nodes, failed_nodes, top
 *   event      event, details: a trace event
 *
 * and `at_us` when it was written, by a clock that all processes of the machine share. */
#ifndef SEL_WORKER_MOCK_REPORT_H
#define SEL_WORKER_MOCK_REPORT_H

#include "core/error.h"
#include "worker/executor.h"

struct sel_mock_report;

/* Opens the file to append to it; made if it is not there. 0; -errno or SEL_ENOMEM with `err`. */
int sel_mock_report_open(const char *path, struct sel_mock_report **ret,
                         struct sel_error *err) SEL_WARN_UNUSED;
struct sel_mock_report *sel_mock_report_close(struct sel_mock_report *report); /* NULL allowed */
/* For options->observer; lives as long as the report. */
const struct sel_executor_observer *sel_mock_report_observer(const struct sel_mock_report *report);
/* From now on `at_us` is what `now_us` says, which is called on any thread. */
void sel_mock_report_clock(struct sel_mock_report *report, int64_t (*now_us)(void *ctx), void *ctx);
/* Lines that could not be written. */
uint64_t sel_mock_report_lost(const struct sel_mock_report *report);

#endif
