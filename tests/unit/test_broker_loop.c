/* The sockets of the broker and its commit thread, around a core that this test is. */
#include "tests/support/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <zmq.h>

#include "broker/commit.h"
#include "broker/logger.h"
#include "broker/loop.h"
#include "proto/wire.h"
#include "storage/journal.h"

#define WAIT_MS 10000 /* nothing takes so long unless it is broken */
#define FLOOD_MAX 200

/* ---- a core that does what frames tell it ----
 *   "echo ..."  answers with the frame        "gone ..."   answers for ever, until nobody is there
 *   "flood"     answers FLOOD_MAX times       "commit"     wants a batch in the journal, then
 * echoes Everything it hears is noted. */
struct sel_broker {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct sel_broker_loop *loop;
    /* below: under the lock, for the tests to look at */
    uint32_t heard, empty, turns, notes, goodbyes, commits;
    int last_send; /* result of the last send of "gone" */
    pthread_t commit_thread;
    /* the loop's own */
    uint32_t connection;
    char kind; /* of the frame that is worked on; 0: none */
    uint32_t left;
    bool wants_commit, under_way;
    uint64_t seq;
    struct sel_buf frame;
};

static void note(struct sel_broker *b, uint32_t *what)
{
    (void)pthread_mutex_lock(&b->lock);
    ++*what;
    (void)pthread_cond_broadcast(&b->changed);
    (void)pthread_mutex_unlock(&b->lock);
}

void sel_broker_receive(struct sel_broker *b, uint32_t connection, struct sel_str frame,
                        struct sel_broker_now now)
{
    assert_true(now.mono_us > 0 && now.unix_us > INT64_C(1600000000000000));
    note(b, &b->heard);
    if (frame.n == 0) {
        note(b, &b->empty);
        return;
    }
    b->connection = connection;
    b->kind = frame.p[0];
    b->left = b->kind == 'f' ? FLOOD_MAX : 1;
    b->wants_commit = b->kind == 'c';
    sel_buf_clear(&b->frame);
    sel_buf_put_str(&b->frame, frame);
}

static int64_t send_gone(struct sel_broker *b, struct sel_broker_now now)
{
    int r = sel_broker_loop_send(b->loop, b->connection, SEL_STR("are you there?"));
    (void)pthread_mutex_lock(&b->lock);
    b->last_send = r;
    (void)pthread_cond_broadcast(&b->changed);
    (void)pthread_mutex_unlock(&b->lock);
    if (r == -EHOSTUNREACH)
        b->kind = 0;
    return now.mono_us + 1000;
}

int64_t sel_broker_turn(struct sel_broker *b, struct sel_broker_now now)
{
    note(b, &b->turns);
    if (b->kind == 'g')
        return send_gone(b, now);
    while (b->kind && b->kind != 'c' && b->left > 0 &&
           sel_broker_loop_send(b->loop, b->connection, sel_buf_str(&b->frame)) == 0)
        b->left--;
    return INT64_MAX;
}

bool sel_broker_take_batches(struct sel_broker *b, struct sel_broker_now now,
                             struct sel_broker_batches *ret)
{
    (void)now;
    if (!b->wants_commit || b->under_way)
        return false;
    *ret = (struct sel_broker_batches){
        .bytes = {sel_buf_str(&b->frame)}, .count = 1, .first = b->seq + 1, .sync = true};
    b->under_way = true;
    return true;
}

void sel_broker_committed(struct sel_broker *b, int result, struct sel_broker_now now)
{
    (void)now;
    b->under_way = false;
    if (result == 0) {
        b->seq++;
        b->wants_commit = false;
        b->kind = 'e';
    }
    (void)pthread_mutex_lock(&b->lock);
    b->commits++;
    (void)pthread_cond_broadcast(&b->changed);
    (void)pthread_mutex_unlock(&b->lock);
}

void sel_broker_note_journal(struct sel_broker *b, uint64_t bytes_live)
{
    assert_int_equal(bytes_live, 42);
    note(b, &b->notes);
}

void sel_broker_goodbye(struct sel_broker *b, const char *reason)
{
    assert_string_equal(reason, "test");
    note(b, &b->goodbyes);
}

void sel_broker_query(struct sel_broker *b, struct sel_str frame, struct sel_broker_now now,
                      struct sel_buf *reply)
{
    (void)b;
    (void)now;
    if (!sel_str_eq_c(frame, "silence"))
        sel_buf_printf(reply, "answer to %.*s", SEL_STR_ARG(frame));
}

/* ---- a journal that fails when told ---- */

struct fake_journal {
    struct sel_journal base;
    struct sel_broker *broker;
    int failures, code; /* so many appends fail with the code */
    uint64_t last;
};

static int fake_append(struct sel_journal *j, const struct sel_str *batches, uint32_t count,
                       bool sync, bool urgent, uint64_t *ret_last, struct sel_error *err)
{
    struct fake_journal *journal = (struct fake_journal *)j;
    assert_int_equal(count, 1);
    assert_true(sync && !urgent && batches[0].n > 0);
    journal->broker->commit_thread = pthread_self();
    if (journal->failures > 0) {
        journal->failures--;
        return sel_error_set(err, journal->code, (struct sel_pos){0}, "as told");
    }
    *ret_last = ++journal->last;
    return 0;
}

static void fake_stats(struct sel_journal *j, struct sel_journal_stats *ret)
{
    (void)j;
    *ret = (struct sel_journal_stats){.bytes_live = 42};
}

static const struct sel_journal_ops fake_ops = {.append = fake_append, .stats = fake_stats};

/* ---- one loop on a thread ---- */

struct fixture {
    struct sel_broker broker;
    struct fake_journal journal;
    struct sel_broker_loop *loop;
    struct sel_broker_commit *commit;
    struct sel_broker_logger logger;
    FILE *log;
    pthread_t thread;
    int result;
    void *zmq;
    char ipc[64];
};

static void *run(void *arg)
{
    struct fixture *f = arg;
    struct sel_broker_loop_work work = {&f->broker, f->commit, &f->journal.base, &f->logger};
    f->result = sel_broker_loop_run(f->loop, &work);
    return NULL;
}

static void wake(void *ctx)
{
    sel_broker_loop_wake(ctx);
}

static struct sel_broker_loop_options options_of(struct fixture *f)
{
    static uint32_t count;
    (void)snprintf(f->ipc, sizeof(f->ipc), "ipc://@selinon-test-%ld-%u", (long)getpid(), count++);
    return (struct sel_broker_loop_options){
        .listen = {{"tcp://127.0.0.1:*", f->ipc, "inproc://peers"}, 3},
        .query = {{"tcp://127.0.0.1:*"}, 1},
        .io_threads = 1,
        .socket_messages = 8};
}

static struct fixture *fixture_start(int failures, int code)
{
    struct fixture *f = SEL_NEW(struct fixture);
    assert_non_null(f);
    struct sel_error err;
    struct sel_broker_loop_options options = options_of(f);
    f->log = tmpfile();
    assert_non_null(f->log);
    sel_broker_logger_init(&f->logger, fileno(f->log), SEL_BROKER_DEBUG);
    assert_ok(sel_broker_loop_new(&options, &f->loop, &err));
    f->broker = (struct sel_broker){
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .loop = f->loop};
    f->journal = (struct fake_journal){{&fake_ops}, &f->broker, failures, code, 0};
    assert_ok(sel_broker_commit_new(&f->journal.base, wake, f->loop, &f->commit));
    f->zmq = zmq_ctx_new();
    assert_int_equal(pthread_create(&f->thread, NULL, run, f), 0);
    return f;
}

/* The log so far, terminated. */
static const char *log_text(struct fixture *f)
{
    static char text[8192];
    rewind(f->log);
    size_t n = fread(text, 1, sizeof(text) - 1, f->log);
    text[n] = '\0';
    return text;
}

static int fixture_join(struct fixture *f)
{
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    return f->result;
}

static void fixture_done(struct fixture *f)
{
    f->commit = sel_broker_commit_free(f->commit);
    assert_int_equal(zmq_ctx_term(f->zmq), 0);
    f->loop = sel_broker_loop_free(f->loop);
    sel_buf_done(&f->broker.frame);
    (void)fclose(f->log);
    (void)sel_mem_free(f);
}

static void fixture_stop(struct fixture *f)
{
    sel_broker_loop_stop(f->loop, "test");
    assert_ok(fixture_join(f));
    assert_int_equal(f->broker.goodbyes, 1);
    fixture_done(f);
}

/* Waits until what(broker) holds. */
static void wait_for(struct sel_broker *b, bool (*what)(const struct sel_broker *b))
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    (void)pthread_mutex_lock(&b->lock);
    while (!what(b)) {
        if (pthread_cond_timedwait(&b->changed, &b->lock, &until) == ETIMEDOUT)
            fail_msg("it does not happen");
    }
    (void)pthread_mutex_unlock(&b->lock);
}

/* ---- a peer ---- */

static void *peer_at(void *zmq, const char *endpoint, const char *routing_id)
{
    int linger = 0, wait = WAIT_MS, hwm = 4;
    void *socket = zmq_socket(zmq, ZMQ_DEALER);
    assert_non_null(socket);
    (void)zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof(linger));
    (void)zmq_setsockopt(socket, ZMQ_RCVTIMEO, &wait, sizeof(wait));
    (void)zmq_setsockopt(socket, ZMQ_RCVHWM, &hwm, sizeof(hwm));
    if (routing_id)
        (void)zmq_setsockopt(socket, ZMQ_ROUTING_ID, routing_id, strlen(routing_id));
    assert_int_equal(zmq_connect(socket, endpoint), 0);
    return socket;
}

static void *peer_new(struct fixture *f)
{
    return peer_at(f->zmq, sel_broker_loop_listens(f->loop)->items[0], NULL);
}

static void say(void *peer, const char *text)
{
    assert_int_equal(zmq_send(peer, text, strlen(text), 0), strlen(text));
}

static void expect(void *peer, const char *text)
{
    char frame[256];
    int n = zmq_recv(peer, frame, sizeof(frame), 0);
    if (n < 0)
        fail_msg("nothing came: %s", zmq_strerror(zmq_errno()));
    assert_str_is(((struct sel_str){frame, (size_t)n}), text);
}

/* ---- sockets ---- */

static void test_frames_come_and_go_on_every_kind_of_endpoint(void **state)
{
    (void)state;
    struct fixture *f = fixture_start(0, 0);
    const struct sel_broker_endpoints *listens = sel_broker_loop_listens(f->loop);
    assert_int_equal(listens->count, 3);
    assert_null(strchr(listens->items[0], '*')); /* the port that it got */
    for (uint32_t i = 0; i < listens->count; i++) {
        bool is_inproc = strncmp(listens->items[i], "inproc", 6) == 0;
        void *zmq = is_inproc ? sel_broker_loop_context(f->loop) : f->zmq;
        void *peer = peer_at(zmq, listens->items[i], NULL);
        say(peer, "echo 1");
        expect(peer, "echo 1");
        say(peer, "echo 2");
        expect(peer, "echo 2");
        (void)zmq_close(peer);
    }
    fixture_stop(f);
}

static void test_an_idle_loop_sleeps(void **state)
{
    (void)state;
    struct fixture *f = fixture_start(0, 0);
    void *peer = peer_new(f);
    struct sel_broker_loop_stats stats;
    for (int i = 0; i < 10; i++) {
        say(peer, "echo");
        expect(peer, "echo");
    }
    (void)zmq_close(peer);
    sel_broker_loop_stop(f->loop, "test");
    assert_ok(fixture_join(f));
    sel_broker_loop_get_stats(f->loop, &stats);
    assert_true(stats.sleeps > 0);
    assert_in_range(stats.turns, 10, 200); /* a loop that spins makes thousands */
    fixture_done(f);
}

static void test_a_message_of_several_frames_is_an_empty_one(void **state)
{
    (void)state;
    struct fixture *f = fixture_start(0, 0);
    void *peer = peer_new(f);
    for (int i = 0; i < 3; i++)
        assert_int_equal(zmq_send(peer, "echo", 4, ZMQ_SNDMORE), 4);
    say(peer, "echo");
    say(peer, "echo after");
    expect(peer, "echo after");
    (void)zmq_close(peer);
    sel_broker_loop_stop(f->loop, "test");
    assert_ok(fixture_join(f));
    assert_int_equal(f->broker.empty, 1);
    fixture_done(f);
}

static void test_a_peer_with_its_own_routing_id_is_not_heard(void **state)
{
    (void)state;
    struct fixture *f = fixture_start(0, 0);
    void *foreign = peer_at(f->zmq, sel_broker_loop_listens(f->loop)->items[0], "me");
    void *peer = peer_new(f);
    say(foreign, "echo foreign");
    for (int i = 0; i < 100; i++) { /* until the loop must have seen both */
        say(peer, "echo");
        expect(peer, "echo");
    }
    sel_broker_loop_stop(f->loop, "test");
    assert_ok(fixture_join(f));
    struct sel_broker_loop_stats stats;
    sel_broker_loop_get_stats(f->loop, &stats);
    assert_int_equal(f->broker.heard, 100);
    assert_int_equal(stats.foreign, 1);
    assert_non_null(strstr(log_text(f), "warning peer.foreign messages=1 "));
    (void)zmq_close(foreign);
    (void)zmq_close(peer);
    fixture_done(f);
}

static bool has_blocked_turns(const struct sel_broker *b)
{
    return b->turns > 50;
}

static void test_a_peer_that_does_not_read_gets_the_rest_later(void **state)
{
    (void)state;
    struct fixture *f = fixture_start(0, 0);
    void *slow = peer_new(f);
    /* frames so large that no buffer of the kernel takes all of them */
    static char flood[128 * 1024] = "flood";
    assert_int_equal(zmq_send(slow, flood, sizeof(flood), 0), sizeof(flood));
    wait_for(&f->broker, has_blocked_turns); /* it goes on turning, without news */
    for (int i = 0; i < FLOOD_MAX; i++) {
        zmq_msg_t frame;
        (void)zmq_msg_init(&frame);
        assert_int_equal(zmq_msg_recv(&frame, slow, 0), sizeof(flood));
        (void)zmq_msg_close(&frame);
    }
    (void)zmq_close(slow);
    sel_broker_loop_stop(f->loop, "test");
    assert_ok(fixture_join(f));
    struct sel_broker_loop_stats stats;
    sel_broker_loop_get_stats(f->loop, &stats);
    assert_true(stats.blocked > 0);
    fixture_done(f);
}

static bool is_unreachable(const struct sel_broker *b)
{
    return b->last_send == -EHOSTUNREACH;
}

static void test_a_peer_that_is_gone_is_unreachable(void **state)
{
    (void)state;
    struct fixture *f = fixture_start(0, 0);
    void *peer = peer_new(f);
    say(peer, "gone");
    expect(peer, "are you there?");
    (void)zmq_close(peer);
    wait_for(&f->broker, is_unreachable);
    fixture_stop(f);
}

static void test_a_message_that_is_too_large_costs_its_sender_the_connection_only(void **state)
{
    (void)state;
    struct fixture *f = fixture_start(0, 0);
    void *peer = peer_new(f), *hostile = peer_new(f);
    char *large = sel_mem_zalloc(SEL_WIRE_MESSAGE_MAX + 1);
    assert_non_null(large);
    assert_int_equal(zmq_send(hostile, large, SEL_WIRE_MESSAGE_MAX + 1, 0),
                     SEL_WIRE_MESSAGE_MAX + 1);
    say(peer, "echo");
    expect(peer, "echo");
    /* what was queued is lost with the connection; what comes over the next one is heard */
    char frame[16];
    int wait = 50, n = -1;
    (void)zmq_setsockopt(hostile, ZMQ_RCVTIMEO, &wait, sizeof(wait));
    for (int i = 0; i < WAIT_MS / wait && n < 0; i++) {
        say(hostile, "echo");
        n = zmq_recv(hostile, frame, sizeof(frame), 0);
    }
    assert_int_equal(n, 4);
    (void)sel_mem_free(large);
    (void)zmq_close(hostile);
    (void)zmq_close(peer);
    fixture_stop(f);
}

static void test_questions_are_answered_at_their_own_endpoint(void **state)
{
    (void)state;
    struct fixture *f = fixture_start(0, 0);
    void *asker = peer_at(f->zmq, sel_broker_loop_queries(f->loop)->items[0], NULL);
    void *named = peer_at(f->zmq, sel_broker_loop_queries(f->loop)->items[0], "named");
    say(asker, "silence");
    for (int i = 0; i < 16; i++) /* as many answers as are kept for one who does not read */
        say(asker, "1");
    for (int i = 0; i < 16; i++)
        expect(asker, "answer to 1");
    say(named, "2"); /* whoever asks may have a name */
    expect(named, "answer to 2");
    (void)zmq_close(asker);
    (void)zmq_close(named);
    fixture_stop(f);
}

static void test_an_endpoint_in_use_is_refused_by_name(void **state)
{
    (void)state;
    struct fixture *f = fixture_start(0, 0);
    for (uint32_t i = 0; i < 2; i++) {
        struct sel_broker_loop_options options = {
            .listen = {{sel_broker_loop_listens(f->loop)->items[i]}, 1},
            .io_threads = 1,
            .socket_messages = 8};
        struct sel_broker_loop *second = NULL;
        struct sel_error err;
        assert_code(sel_broker_loop_new(&options, &second, &err), -EADDRINUSE);
        assert_null(second);
        assert_non_null(strstr(err.text, options.listen.items[0]));
        assert_non_null(strstr(err.text, "does another broker run there?"));
    }
    void *peer = peer_at(f->zmq, f->ipc, NULL); /* and nothing happened to the first */
    say(peer, "echo");
    expect(peer, "echo");
    (void)zmq_close(peer);
    fixture_stop(f);
}

/* ---- commits ---- */

static void test_a_batch_is_committed_on_another_thread_and_the_loop_wakes(void **state)
{
    (void)state;
    struct fixture *f = fixture_start(0, 0);
    void *peer = peer_new(f);
    for (uint32_t i = 1; i <= 20; i++) {
        say(peer, "commit");
        expect(peer, "commit");
    }
    (void)zmq_close(peer);
    sel_broker_loop_stop(f->loop, "test");
    assert_ok(fixture_join(f));
    assert_int_equal(f->broker.commits, 20);
    assert_int_equal(f->journal.last, 20);
    assert_false(pthread_equal(f->broker.commit_thread, f->thread));
    fixture_done(f);
}

static bool has_commits(const struct sel_broker *b)
{
    return b->commits >= 3;
}

static void test_a_full_journal_is_told_once_and_tried_again(void **state)
{
    (void)state;
    struct fixture *f = fixture_start(2, -ENOSPC);
    void *peer = peer_new(f);
    say(peer, "commit");
    expect(peer, "commit");
    wait_for(&f->broker, has_commits);
    (void)zmq_close(peer);
    sel_broker_loop_stop(f->loop, "test");
    assert_ok(fixture_join(f));
    const char *full = strstr(log_text(f), "journal.refused error=ENOSPC text=\"as told\"");
    assert_non_null(full);
    assert_null(strstr(full + 1, "journal.refused"));
    assert_non_null(strstr(full, "info journal.goes_on"));
    fixture_done(f);
}

static void test_a_broken_journal_ends_the_loop(void **state)
{
    (void)state;
    struct fixture *f = fixture_start(1, -EIO);
    void *peer = peer_new(f);
    say(peer, "commit");
    assert_code(fixture_join(f), -EIO);
    assert_int_equal(f->broker.commits, 0); /* the core is not asked any more */
    assert_int_equal(f->broker.goodbyes, 0);
    assert_non_null(strstr(log_text(f), "error journal.failed error=EIO text=\"as told\""));
    (void)zmq_close(peer);
    fixture_done(f);
}

static bool hears(const struct sel_broker *b)
{
    return b->heard > 0;
}

static void test_a_stop_waits_for_the_last_commit(void **state)
{
    (void)state;
    struct fixture *f = fixture_start(3, SEL_ELIMIT); /* it takes some tries, too */
    void *peer = peer_new(f);
    say(peer, "commit");
    wait_for(&f->broker, hears);
    sel_broker_loop_stop(f->loop, "test");
    assert_ok(fixture_join(f));
    assert_int_equal(f->journal.last, 1);
    (void)zmq_close(peer);
    fixture_done(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_come_and_go_on_every_kind_of_endpoint),
        cmocka_unit_test(test_an_idle_loop_sleeps),
        cmocka_unit_test(test_a_message_of_several_frames_is_an_empty_one),
        cmocka_unit_test(test_a_peer_with_its_own_routing_id_is_not_heard),
        cmocka_unit_test(test_a_peer_that_does_not_read_gets_the_rest_later),
        cmocka_unit_test(test_a_peer_that_is_gone_is_unreachable),
        cmocka_unit_test(test_a_message_that_is_too_large_costs_its_sender_the_connection_only),
        cmocka_unit_test(test_questions_are_answered_at_their_own_endpoint),
        cmocka_unit_test(test_an_endpoint_in_use_is_refused_by_name),
        cmocka_unit_test(test_a_batch_is_committed_on_another_thread_and_the_loop_wakes),
        cmocka_unit_test(test_a_full_journal_is_told_once_and_tried_again),
        cmocka_unit_test(test_a_broken_journal_ends_the_loop),
        cmocka_unit_test(test_a_stop_waits_for_the_last_commit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
