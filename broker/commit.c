#include "broker/commit.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "core/mem.h"
#include "storage/journal.h"

enum state { IDLE, POSTED, ENDED };

struct sel_broker_commit {
    struct sel_journal *journal;
    void (*wake)(void *ctx);
    void *ctx;
    pthread_t thread;
    pthread_mutex_t lock; /* of `ends`, and of POSTED for whoever waits */
    pthread_cond_t changed;
    bool ends;
    _Atomic(enum state) state;
    /* The poster's in IDLE and ENDED, the thread's in POSTED. */
    struct sel_broker_batches batches;
    int result;
    struct sel_error err;
    uint64_t drop_before; /* what the journal may have refused to drop for lack of room */
};

static bool is_full(int result)
{
    return result == -ENOSPC || result == SEL_ELIMIT;
}

static int append(struct sel_broker_commit *commit)
{
    const struct sel_broker_batches *batches = &commit->batches;
    struct sel_journal *journal = commit->journal;
    if (batches->count == 0)
        return batches->sync ? journal->ops->sync(journal, &commit->err) : 0;
    uint64_t last = 0;
    int r = journal->ops->append(journal, batches->bytes, batches->count, batches->sync,
                                 batches->urgent, &last, &commit->err);
    if (r < 0)
        return r;
    /* Anything else means that broker and journal disagree about what is on disk. */
    SEL_ASSERT(last == batches->first + batches->count - 1);
    return 0;
}

/* The batches are in the journal; now what they made superfluous may go. */
static int drop(struct sel_broker_commit *commit)
{
    if (commit->batches.drop_before > commit->drop_before)
        commit->drop_before = commit->batches.drop_before;
    if (commit->drop_before == 0)
        return 0;
    int r = commit->journal->ops->drop(commit->journal, commit->drop_before, &commit->err);
    if (is_full(r)) /* nothing is lost by it: tried again with the next commit */
        return 0;
    if (r == 0)
        commit->drop_before = 0;
    return r;
}

static bool wait_for_work(struct sel_broker_commit *commit)
{
    (void)pthread_mutex_lock(&commit->lock);
    while (!commit->ends && atomic_load_explicit(&commit->state, memory_order_acquire) != POSTED)
        (void)pthread_cond_wait(&commit->changed, &commit->lock);
    bool works = atomic_load_explicit(&commit->state, memory_order_acquire) == POSTED;
    (void)pthread_mutex_unlock(&commit->lock);
    return works;
}

static void *run(void *arg)
{
    struct sel_broker_commit *commit = arg;
    while (wait_for_work(commit)) {
        int r = append(commit);
        commit->result = r == 0 ? drop(commit) : r;
        atomic_store_explicit(&commit->state, ENDED, memory_order_seq_cst);
        commit->wake(commit->ctx);
    }
    return NULL;
}

int sel_broker_commit_new(struct sel_journal *journal, void (*wake)(void *ctx), void *ctx,
                          struct sel_broker_commit **ret)
{
    struct sel_broker_commit *commit = SEL_NEW(struct sel_broker_commit);
    if (!commit)
        return SEL_ENOMEM;
    commit->journal = journal;
    commit->wake = wake;
    commit->ctx = ctx;
    (void)pthread_mutex_init(&commit->lock, NULL); /* these cannot fail on Linux */
    (void)pthread_cond_init(&commit->changed, NULL);
    int r = pthread_create(&commit->thread, NULL, run, commit);
    if (r != 0) {
        (void)sel_mem_free(commit);
        return -r;
    }
    (void)pthread_setname_np(commit->thread, "broker-commit");
    *ret = commit;
    return 0;
}

struct sel_broker_commit *sel_broker_commit_free(struct sel_broker_commit *commit)
{
    if (!commit)
        return NULL;
    (void)pthread_mutex_lock(&commit->lock);
    commit->ends = true;
    (void)pthread_cond_signal(&commit->changed);
    (void)pthread_mutex_unlock(&commit->lock);
    (void)pthread_join(commit->thread, NULL);
    (void)pthread_mutex_destroy(&commit->lock);
    (void)pthread_cond_destroy(&commit->changed);
    return sel_mem_free(commit);
}

void sel_broker_commit_post(struct sel_broker_commit *commit,
                            const struct sel_broker_batches *batches)
{
    SEL_ASSERT(atomic_load_explicit(&commit->state, memory_order_relaxed) == IDLE);
    commit->batches = *batches;
    (void)pthread_mutex_lock(&commit->lock);
    atomic_store_explicit(&commit->state, POSTED, memory_order_release);
    (void)pthread_cond_signal(&commit->changed);
    (void)pthread_mutex_unlock(&commit->lock);
}

bool sel_broker_commit_is_under_way(const struct sel_broker_commit *commit)
{
    return atomic_load_explicit(&commit->state, memory_order_relaxed) != IDLE;
}

bool sel_broker_commit_has_ended(const struct sel_broker_commit *commit)
{
    return atomic_load_explicit(&commit->state, memory_order_seq_cst) == ENDED;
}

bool sel_broker_commit_take(struct sel_broker_commit *commit, int *ret_result,
                            const struct sel_error **ret_err)
{
    if (!sel_broker_commit_has_ended(commit))
        return false;
    *ret_result = commit->result;
    *ret_err = &commit->err;
    atomic_store_explicit(&commit->state, IDLE, memory_order_relaxed);
    return true;
}
