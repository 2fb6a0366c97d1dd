/* tests/support/server.h - a program that runs beside the test, in a folder of its own, until it is
 * told to end: a broker above all. */
#ifndef SEL_TESTS_SUPPORT_SERVER_H
#define SEL_TESTS_SUPPORT_SERVER_H

#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

#include "tests/support/program.h"

#define SEL_TEST_SERVER_WAIT_MS 30000 /* nothing takes so long unless it is broken */

struct sel_test_server {
    pid_t pid;
    const struct sel_test_folder *folder;
    char log[64];                 /* its standard error, in the folder */
    char listen[256], query[256]; /* of a broker that is ready */
    char *log_text;               /* as last read; freed by done */
};

static inline void sel_test_pause(void)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

/* The file's text, freed by the caller; NULL: there is none. */
static inline char *sel_test_read(const struct sel_test_folder *folder, const char *name)
{
    char path[512], piece[4096];
    struct sel_buf buf = {0};
    (void)snprintf(path, sizeof(path), "%s/%s", folder->path, name);
    FILE *file = fopen(path, "r");
    if (!file)
        return NULL;
    for (size_t n; (n = fread(piece, 1, sizeof(piece), file)) > 0;)
        sel_buf_put(&buf, piece, n);
    (void)fclose(file);
    sel_buf_put_u8(&buf, 0);
    assert_int_equal(sel_buf_error(&buf), 0);
    return (char *)buf.p;
}

/* Starts argv[0] in `folder`; its standard error goes to the file `log` there, both others nowhere.
 */
static inline void sel_test_server_run(struct sel_test_server *server,
                                       const struct sel_test_folder *folder, const char *log,
                                       const char *const *argv)
{
    static const char *const none[] = {NULL};
    char path[512];
    *server = (struct sel_test_server){.folder = folder};
    (void)snprintf(server->log, sizeof(server->log), "%s", log);
    (void)snprintf(path, sizeof(path), "%s/%s", folder->path, log);
    (void)unlink(path); /* what an earlier one wrote is not to be read */
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that dies leaves nothing behind */
        if (chdir(folder->path) < 0)
            _exit(126);
        sel_test_redirect("/dev/null", STDIN_FILENO);
        sel_test_redirect("/dev/null", STDOUT_FILENO);
        sel_test_redirect(path, STDERR_FILENO);
        (void)execve(argv[0], (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)none);
        _exit(126);
    }
}

/* Its log so far. */
static inline const char *sel_test_server_log(struct sel_test_server *server)
{
    (void)sel_mem_free(server->log_text);
    server->log_text = sel_test_read(server->folder, server->log);
    return server->log_text ? server->log_text : "";
}

static inline bool sel_test_server_has_ended(const struct sel_test_server *server)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)server->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid != 0;
}

/* Waits for a text in its log. */
static inline void sel_test_server_expect(struct sel_test_server *server, const char *text)
{
    for (int i = 0; i < SEL_TEST_SERVER_WAIT_MS / 5; i++) {
        if (strstr(sel_test_server_log(server), text))
            return;
        if (sel_test_server_has_ended(server))
            break;
        sel_test_pause();
    }
    fail_msg("'%s' is not in the log:\n%s", text, sel_test_server_log(server));
}

/* Waits for its end; the exit status, or minus the signal. */
static inline int sel_test_server_wait(struct sel_test_server *server)
{
    for (int i = 0; i < SEL_TEST_SERVER_WAIT_MS / 5 && !sel_test_server_has_ended(server); i++)
        sel_test_pause();
    if (!sel_test_server_has_ended(server)) {
        (void)kill(server->pid, SIGKILL);
        fail_msg("it does not end:\n%s", sel_test_server_log(server));
    }
    int status;
    assert_int_equal(waitpid(server->pid, &status, 0), server->pid);
    server->pid = 0;
    if (strstr(sel_test_server_log(server), "Sanitizer"))
        fail_msg("%s", server->log_text);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static inline int sel_test_server_end(struct sel_test_server *server, int signal)
{
    assert_int_equal(kill(server->pid, signal), 0);
    return sel_test_server_wait(server);
}

static inline void sel_test_server_done(struct sel_test_server *server)
{
    if (server->pid > 0) {
        (void)kill(server->pid, SIGKILL);
        (void)waitpid(server->pid, NULL, 0);
    }
    server->log_text = sel_mem_free(server->log_text);
}

/* ---- a broker ---- */

static inline bool sel_test_broker_read_ready(struct sel_test_server *server, const char *file)
{
    char *text = sel_test_read(server->folder, file);
    bool is_there =
        text && sscanf(text, "listen %255s\nquery %255s\n", server->listen, server->query) == 2;
    (void)sel_mem_free(text);
    return is_there;
}

/* Starts `program` with further `args` (ended by NULL) on ports that are free, and waits until it
 * answers. Its log is the file `log`. */
static inline void sel_test_broker_start(struct sel_test_server *server,
                                         const struct sel_test_folder *folder, const char *program,
                                         const char *log, const char *const *args)
{
    const char *argv[64] = {program,   "--listen",          "tcp://127.0.0.1:*",
                            "--query", "tcp://127.0.0.1:*", "--ready-file",
                            ".ready"};
    size_t count = 7;
    for (; *args && count < SEL_COUNT(argv) - 1; args++)
        argv[count++] = *args;
    char ready[512];
    (void)snprintf(ready, sizeof(ready), "%s/.ready", folder->path);
    (void)unlink(ready);
    sel_test_server_run(server, folder, log, argv);
    for (int i = 0; i < SEL_TEST_SERVER_WAIT_MS / 5; i++) {
        if (sel_test_broker_read_ready(server, ".ready"))
            return;
        if (sel_test_server_has_ended(server))
            break;
        sel_test_pause();
    }
    fail_msg("no broker:\n%s", sel_test_server_log(server));
}

#endif
