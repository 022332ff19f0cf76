/* Receiving ahead: a thread receives the next datagrams of a dump. */
#include "netlink.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>

/* About what the kernel writes while Python looks at a thousand flows. */
enum { SLOTS = 8 };

struct readahead {
    struct nlct_socket *sock;
    uint8_t *alive; /* 1; 0 in the child of a fork, which has no such thread */
    pthread_t thread;
    pthread_mutex_t lock; /* of all that follows but the bytes */
    pthread_cond_t news;  /* for the caller */
    pthread_cond_t room;  /* for the thread */
    uint64_t received;    /* datagrams; number n is in slot n % SLOTS */
    uint64_t released;    /* datagrams that the caller is done with */
    bool lent;            /* the caller looks at the first that is not released */
    bool stop;
    bool ended;
    int error;
    int sizes[SLOTS];
    uint8_t bytes[SLOTS][SOCKET_BUFFER];
};

/* Waits for a free slot. Returns NULL if the thread must stop. */
static uint8_t *free_slot(struct readahead *readahead)
{
    uint8_t *slot;

    pthread_mutex_lock(&readahead->lock);
    while (!readahead->stop && readahead->received - readahead->released == SLOTS)
        pthread_cond_wait(&readahead->room, &readahead->lock);
    slot = readahead->stop ? NULL : readahead->bytes[readahead->received % SLOTS];
    pthread_mutex_unlock(&readahead->lock);
    return slot;
}

static void *receive(void *context)
{
    struct readahead *readahead = context;
    int size = 0;

    while (size >= 0) {
        uint8_t *slot = free_slot(readahead);

        if (!slot)
            break;
        size = socket_receive_to(readahead->sock, slot);
        pthread_mutex_lock(&readahead->lock);
        if (size >= 0)
            readahead->sizes[readahead->received++ % SLOTS] = size;
        else
            readahead->error = size;
        readahead->ended = size < 0;
        pthread_cond_signal(&readahead->news);
        pthread_mutex_unlock(&readahead->lock);
    }
    return NULL;
}

/* Signals must go to the program's own threads. */
static int start_thread(struct readahead *readahead)
{
    sigset_t all;
    sigset_t before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&readahead->thread, NULL, receive, readahead);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -rc;
}

static bool has_processors(void)
{
    cpu_set_t usable;

    return sched_getaffinity(0, sizeof(usable), &usable) == 0 && CPU_COUNT(&usable) > 1;
}

/* Allocates zeros. Not by malloc(3): once a block of this size has been freed, it takes the
   program's next large blocks from a heap that does not shrink. */
static void *allocate(size_t size)
{
    void *new = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return new == MAP_FAILED ? NULL : new;
}

static void release(struct readahead *readahead)
{
    if (readahead->alive)
        munmap(readahead->alive, 1);
    munmap(readahead, sizeof(*readahead));
}

/* Makes a page that the kernel wipes in the child of a fork. Process ids do not tell parent from
   child: both may be number 1 of a namespace. */
static bool mark_alive(struct readahead *readahead)
{
    readahead->alive = allocate(1);
    if (!readahead->alive || madvise(readahead->alive, 1, MADV_WIPEONFORK) < 0)
        return false;
    *readahead->alive = 1;
    return true;
}

struct readahead *readahead_start(struct nlct_socket *sock)
{
    pthread_condattr_t monotonic;
    struct readahead *readahead = has_processors() ? allocate(sizeof(*readahead)) : NULL;

    if (!readahead)
        return NULL;
    readahead->sock = sock;
    pthread_mutex_init(&readahead->lock, NULL);
    pthread_cond_init(&readahead->room, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&readahead->news, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (mark_alive(readahead) && start_thread(readahead) == 0)
        return readahead;
    release(readahead);
    return NULL;
}

int readahead_next(struct readahead *readahead, struct wire *wire, int64_t deadline)
{
    const struct timespec until = {.tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000};
    size_t slot;
    int rc = 0;

    pthread_mutex_lock(&readahead->lock);
    if (readahead->lent) {
        readahead->released++;
        readahead->lent = false;
        pthread_cond_signal(&readahead->room);
    }
    while (readahead->received == readahead->released && !readahead->ended && rc == 0)
        rc = pthread_cond_timedwait(&readahead->news, &readahead->lock, &until);
    slot = readahead->released % SLOTS;
    readahead->lent = readahead->received != readahead->released;
    if (readahead->lent) {
        *wire = (struct wire){readahead->bytes[slot], (size_t)readahead->sizes[slot]};
        rc = 0;
    } else {
        rc = readahead->ended ? readahead->error : -EINTR;
    }
    pthread_mutex_unlock(&readahead->lock);
    return rc;
}

void readahead_stop(struct readahead *readahead)
{
    if (!readahead)
        return;
    if (*readahead->alive) {
        pthread_mutex_lock(&readahead->lock);
        readahead->stop = true;
        pthread_cond_signal(&readahead->room);
        pthread_mutex_unlock(&readahead->lock);
        pthread_join(readahead->thread, NULL);
    }
    release(readahead);
}
