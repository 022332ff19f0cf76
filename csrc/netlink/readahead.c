/* Receiving ahead: a thread has the kernel write the next datagrams of a dump. */
#include "netlink.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>

/* As much as the kernel writes while Python looks at a thousand flows. */
enum { SLOTS = 8 };

struct readahead {
    struct nlct_socket *sock;
    uint8_t *alive; /* 1, but for the child of a fork, which has no such thread: there it is 0 */
    pthread_t thread;
    pthread_mutex_t lock; /* of all that follows but the bytes */
    pthread_cond_t news;  /* for the caller */
    pthread_cond_t room;  /* for the thread */
    uint64_t received;    /* datagrams; number n is in slot n % SLOTS */
    uint64_t released;    /* of them, those that the caller is done with */
    bool lent;            /* the caller looks at the first that is not released */
    bool stop;
    bool ended;
    int error;
    int sizes[SLOTS];
    uint8_t bytes[SLOTS][SOCKET_BUFFER];
};

/* Waits for a slot. Returns NULL when it is to stop. */
static uint8_t *free_slot(struct readahead *ahead)
{
    uint8_t *slot;

    pthread_mutex_lock(&ahead->lock);
    while (!ahead->stop && ahead->received - ahead->released == SLOTS)
        pthread_cond_wait(&ahead->room, &ahead->lock);
    slot = ahead->stop ? NULL : ahead->bytes[ahead->received % SLOTS];
    pthread_mutex_unlock(&ahead->lock);
    return slot;
}

static void *receive(void *context)
{
    struct readahead *ahead = context;
    int size = 0;

    while (size >= 0) {
        uint8_t *slot = free_slot(ahead);

        if (!slot)
            break;
        size = socket_receive_to(ahead->sock, slot);
        pthread_mutex_lock(&ahead->lock);
        if (size >= 0)
            ahead->sizes[ahead->received++ % SLOTS] = size;
        else
            ahead->error = size;
        ahead->ended = size < 0;
        pthread_cond_signal(&ahead->news);
        pthread_mutex_unlock(&ahead->lock);
    }
    return NULL;
}

/* Signals are for the threads of the program. */
static int start_thread(struct readahead *ahead)
{
    sigset_t all;
    sigset_t before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&ahead->thread, NULL, receive, ahead);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -rc;
}

static bool has_processors(void)
{
    cpu_set_t usable;

    return sched_getaffinity(0, sizeof(usable), &usable) == 0 && CPU_COUNT(&usable) > 1;
}

/* Zeros. Not by malloc(3), which would take the next large blocks of the program from a heap that
   does not shrink, once a block of this size has been freed. */
static void *allocate(size_t size)
{
    void *new = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return new == MAP_FAILED ? NULL : new;
}

static void release(struct readahead *ahead)
{
    if (ahead->alive)
        munmap(ahead->alive, 1);
    munmap(ahead, sizeof(*ahead));
}

/* A page that the kernel wipes in the child of a fork: process ids do not tell one from the other,
   since both may be number 1 of a namespace. */
static bool mark_alive(struct readahead *ahead)
{
    ahead->alive = allocate(1);
    if (!ahead->alive || madvise(ahead->alive, 1, MADV_WIPEONFORK) < 0)
        return false;
    *ahead->alive = 1;
    return true;
}

struct readahead *readahead_start(struct nlct_socket *sock)
{
    pthread_condattr_t monotonic;
    struct readahead *ahead = has_processors() ? allocate(sizeof(*ahead)) : NULL;

    if (!ahead)
        return NULL;
    ahead->sock = sock;
    pthread_mutex_init(&ahead->lock, NULL);
    pthread_cond_init(&ahead->room, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&ahead->news, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (mark_alive(ahead) && start_thread(ahead) == 0)
        return ahead;
    release(ahead);
    return NULL;
}

int readahead_next(struct readahead *ahead, struct wire *wire, int64_t deadline)
{
    const struct timespec until = {.tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000};
    size_t slot;
    int rc = 0;

    pthread_mutex_lock(&ahead->lock);
    if (ahead->lent) {
        ahead->released++;
        ahead->lent = false;
        pthread_cond_signal(&ahead->room);
    }
    while (ahead->received == ahead->released && !ahead->ended && rc == 0)
        rc = pthread_cond_timedwait(&ahead->news, &ahead->lock, &until);
    slot = ahead->released % SLOTS;
    ahead->lent = ahead->received != ahead->released;
    if (ahead->lent) {
        *wire = (struct wire){ahead->bytes[slot], (size_t)ahead->sizes[slot]};
        rc = 0;
    } else {
        rc = ahead->ended ? ahead->error : -EINTR;
    }
    pthread_mutex_unlock(&ahead->lock);
    return rc;
}

void readahead_stop(struct readahead *ahead)
{
    if (!ahead)
        return;
    if (*ahead->alive) {
        pthread_mutex_lock(&ahead->lock);
        ahead->stop = true;
        pthread_cond_signal(&ahead->room);
        pthread_mutex_unlock(&ahead->lock);
        pthread_join(ahead->thread, NULL);
    }
    release(ahead);
}
