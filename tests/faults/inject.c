/*
 * A preload library that makes the calls of one shared object fail.
 *
 * Calls are told by their return address, so that the rest of the process is left alone. Each call
 * is counted by its name; those from number 'first' to 'last' of the one that is armed fail. A
 * helper child that shares our memory (clone(2) with CLONE_VM) counts like a thread.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS(X)                                                                                   \
    X(socket)                                                                                      \
    X(bind)                                                                                        \
    X(getsockname)                                                                                 \
    X(getsockopt)                                                                                  \
    X(setsockopt)                                                                                  \
    X(sendto)                                                                                      \
    X(recvmsg)                                                                                     \
    X(recvmmsg)                                                                                    \
    X(poll)                                                                                        \
    X(open)                                                                                        \
    X(openat)                                                                                      \
    X(read)                                                                                        \
    X(pread)                                                                                       \
    X(close)                                                                                       \
    X(ioctl)                                                                                       \
    X(fstat)                                                                                       \
    X(fcntl)                                                                                       \
    X(clone)                                                                                       \
    X(setns)                                                                                       \
    X(unshare)                                                                                     \
    X(waitpid)                                                                                     \
    X(malloc)                                                                                      \
    X(calloc)                                                                                      \
    X(realloc)                                                                                     \
    X(mmap)                                                                                        \
    X(munmap)                                                                                      \
    X(madvise)                                                                                     \
    X(pthread_create)                                                                              \
    X(pthread_cond_wait)                                                                           \
    X(pthread_cond_timedwait)                                                                      \
    X(sched_getaffinity)                                                                           \
    X(syscall)                                                                                     \
    X(getrandom)

#define NUMBER(name) CALL_##name,
#define NAME(name) #name,

enum call { CALLS(NUMBER) HOW_MANY };
static const char *const names[HOW_MANY + 1] = {CALLS(NAME)};

/* What may happen in place of an errno. */
enum fault {
    TRUNCATE = -1, /* the datagram was longer than the buffer */
    KILL = -2,     /* a helper child is killed in this call */
    PRETEND = -3   /* success, and nothing was done */
};

/* The control, for the driver; nothing else may run meanwhile. */
int faults_watch(const char *name);
const char *faults_name(unsigned call);
void faults_arm(unsigned call, unsigned first, unsigned last, int fault);
unsigned faults_count(unsigned call);
unsigned faults_fired(void);
long faults_held(void);

static uintptr_t begin;
static uintptr_t end;
static unsigned armed = HOW_MANY;
static unsigned armed_first;
static unsigned armed_last;
static int armed_fault;
static pid_t owner;
static atomic_uint counts[HOW_MANY];
static atomic_uint fired;
static atomic_long held;

static int find(struct dl_phdr_info *object, size_t size, void *name)
{
    int i;

    (void)size;
    if (!strstr(object->dlpi_name, name))
        return 0;
    for (i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];

        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X))
            continue;
        begin = object->dlpi_addr + part->p_vaddr;
        end = begin + part->p_memsz;
        return 1;
    }
    return 0;
}

/* Watches the object whose path contains 'name'. Returns 0, or -1 where none is loaded. */
int faults_watch(const char *name)
{
    char wanted[256] = {0};

    strncpy(wanted, name, sizeof(wanted) - 1);
    return dl_iterate_phdr(find, wanted) ? 0 : -1;
}

/* NULL past the last. */
const char *faults_name(unsigned call)
{
    return names[call < HOW_MANY ? call : HOW_MANY];
}

/* Counts from zero. 'fault' is an errno or one of enum fault; 'first' of 0 disarms. */
void faults_arm(unsigned call, unsigned first, unsigned last, int fault)
{
    unsigned i;

    armed = first ? call : HOW_MANY;
    armed_first = first;
    armed_last = last;
    armed_fault = fault;
    owner = getpid();
    fired = 0;
    for (i = 0; i < HOW_MANY; i++)
        counts[i] = 0;
}

unsigned faults_count(unsigned call)
{
    return counts[call];
}

unsigned faults_fired(void)
{
    return fired;
}

/* Blocks and mappings that the watched object has taken and not given back. */
long faults_held(void)
{
    return held;
}

static bool is_watched(const void *caller)
{
    return (uintptr_t)caller >= begin && (uintptr_t)caller < end;
}

/* Returns what is to happen in place of this call; 0 is nothing. Sets errno. */
static int fault_of(enum call call, const void *caller)
{
    unsigned number;

    if (!is_watched(caller))
        return 0;
    number = ++counts[call];
    if (call != armed || number < armed_first || number > armed_last)
        return 0;
    if (armed_fault == KILL && getpid() == owner)
        return 0;
    fired++;
    if (armed_fault == KILL)
        kill(getpid(), SIGKILL);
    if (armed_fault > 0)
        errno = armed_fault;
    return armed_fault;
}

typedef void (*function)(void);

static function real_of(enum call call)
{
    static function found[HOW_MANY];
    void *symbol;

    if (!found[call]) {
        symbol = dlsym(RTLD_NEXT, names[call]);
        memcpy(&found[call], &symbol, sizeof(symbol));
    }
    return found[call];
}

#define REAL(name) ((__typeof__(name) *)real_of(CALL_##name))
#define FAULT(name) fault_of(CALL_##name, __builtin_return_address(0))

/* A function that does nothing when it fails. */
#define PLAIN(name, failure, parameters, arguments)                                                \
    int name parameters                                                                            \
    {                                                                                              \
        const int fault = FAULT(name);                                                             \
                                                                                                   \
        if (fault)                                                                                 \
            return fault == PRETEND ? 0 : failure;                                                 \
        return REAL(name) arguments;                                                               \
    }

PLAIN(socket, -1, (int domain, int type, int protocol), (domain, type, protocol))
PLAIN(bind, -1, (int fd, __CONST_SOCKADDR_ARG address, socklen_t size), (fd, address, size))
PLAIN(getsockname, -1, (int fd, __SOCKADDR_ARG address, socklen_t *restrict size),
      (fd, address, size))
PLAIN(getsockopt, -1,
      (int fd, int level, int option, void *restrict value, socklen_t *restrict size),
      (fd, level, option, value, size))
PLAIN(setsockopt, -1, (int fd, int level, int option, const void *value, socklen_t size),
      (fd, level, option, value, size))
PLAIN(poll, -1, (struct pollfd * wanted, nfds_t count, int timeout), (wanted, count, timeout))
PLAIN(fstat, -1, (int fd, struct stat *status), (fd, status))
PLAIN(setns, -1, (int fd, int kinds), (fd, kinds))
PLAIN(unshare, -1, (int kinds), (kinds))
PLAIN(madvise, -1, (void *address, size_t size, int advice), (address, size, advice))
PLAIN(sched_getaffinity, -1, (pid_t pid, size_t size, cpu_set_t *usable), (pid, size, usable))
PLAIN(pthread_create, fault,
      (pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
       void *(*start)(void *), void *restrict argument),
      (thread, attributes, start, argument))
PLAIN(pthread_cond_wait, fault,
      (pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex), (condition, mutex))
PLAIN(pthread_cond_timedwait, fault,
      (pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
       const struct timespec *restrict until),
      (condition, mutex, until))

ssize_t sendto(int fd, const void *data, size_t size, int flags, __CONST_SOCKADDR_ARG to,
               socklen_t to_size)
{
    return FAULT(sendto) ? -1 : REAL(sendto)(fd, data, size, flags, to, to_size);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    const int fault = FAULT(recvmsg);
    ssize_t size;

    if (fault > 0)
        return -1;
    size = REAL(recvmsg)(fd, message, flags);
    if (fault == TRUNCATE && size > 0)
        message->msg_flags |= MSG_TRUNC;
    return size;
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)
{
    const int fault = FAULT(recvmmsg);
    int received;

    if (fault > 0)
        return -1;
    received = REAL(recvmmsg)(fd, messages, count, flags, timeout);
    if (fault == TRUNCATE && received > 0)
        messages[received - 1].msg_hdr.msg_flags |= MSG_TRUNC;
    return received;
}

/* No call of ours has more than three arguments. */
long syscall(long number, ...)
{
    long given[3];
    va_list rest;
    int i;

    va_start(rest, number);
    for (i = 0; i < 3; i++)
        given[i] = va_arg(rest, long);
    va_end(rest);
    return FAULT(syscall) ? -1 : REAL(syscall)(number, given[0], given[1], given[2]);
}

ssize_t read(int fd, void *buffer, size_t size)
{
    return FAULT(read) ? -1 : REAL(read)(fd, buffer, size);
}

ssize_t pread(int fd, void *buffer, size_t size, off_t offset)
{
    return FAULT(pread) ? -1 : REAL(pread)(fd, buffer, size, offset);
}

ssize_t getrandom(void *buffer, size_t size, unsigned flags)
{
    return FAULT(getrandom) ? -1 : REAL(getrandom)(buffer, size, flags);
}

/* Closes even so, as the kernel does. */
int close(int fd)
{
    const int fault = FAULT(close);
    const int rc = REAL(close)(fd);

    if (!fault)
        return rc;
    errno = fault;
    return -1;
}

/* Somebody else has waited for the child, or, with EINTR, nobody yet. */
pid_t waitpid(pid_t pid, int *status, int options)
{
    const int fault = FAULT(waitpid);

    if (fault && fault != EINTR)
        REAL(waitpid)(pid, NULL, options);
    if (!fault)
        return REAL(waitpid)(pid, status, options);
    errno = fault;
    return -1;
}

static mode_t mode_in(int flags, va_list rest)
{
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    const int fault = FAULT(open);
    va_list rest;
    mode_t mode;

    va_start(rest, flags);
    mode = mode_in(flags, rest);
    va_end(rest);
    return fault ? -1 : REAL(open)(path, flags, mode);
}

int openat(int at, const char *path, int flags, ...)
{
    const int fault = FAULT(openat);
    va_list rest;
    mode_t mode;

    va_start(rest, flags);
    mode = mode_in(flags, rest);
    va_end(rest);
    return fault ? -1 : REAL(openat)(at, path, flags, mode);
}

/* The argument is a number or a pointer, of which there is one or none: both go through. */
int ioctl(int fd, unsigned long request, ...)
{
    const int fault = FAULT(ioctl);
    va_list rest;
    void *argument;

    va_start(rest, request);
    argument = va_arg(rest, void *);
    va_end(rest);
    return fault ? -1 : REAL(ioctl)(fd, request, argument);
}

int fcntl(int fd, int command, ...)
{
    const int fault = FAULT(fcntl);
    va_list rest;
    void *argument;

    va_start(rest, command);
    argument = va_arg(rest, void *);
    va_end(rest);
    return fault ? -1 : REAL(fcntl)(fd, command, argument);
}

int clone(int (*run)(void *), void *stack, int flags, void *argument, ...)
{
    const int fault = FAULT(clone);
    va_list rest;
    void *parent_id;
    void *storage;
    void *child_id;

    va_start(rest, argument);
    parent_id = va_arg(rest, void *);
    storage = va_arg(rest, void *);
    child_id = va_arg(rest, void *);
    va_end(rest);
    return fault ? -1 : REAL(clone)(run, stack, flags, argument, parent_id, storage, child_id);
}

/* Memory. By dlsym(3) they cannot be found: it allocates. */

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void __libc_free(void *block);

static void note(const void *caller, long more)
{
    if (is_watched(caller))
        held += more;
}

void *malloc(size_t size)
{
    void *block = FAULT(malloc) ? NULL : __libc_malloc(size);

    note(__builtin_return_address(0), block != NULL);
    return block;
}

void *calloc(size_t count, size_t size)
{
    void *block = FAULT(calloc) ? NULL : __libc_calloc(count, size);

    note(__builtin_return_address(0), block != NULL);
    return block;
}

void *realloc(void *block, size_t size)
{
    const bool is_new = !block;
    void *resized = FAULT(realloc) ? NULL : __libc_realloc(block, size);

    note(__builtin_return_address(0), is_new && resized);
    return resized;
}

void free(void *block)
{
    note(__builtin_return_address(0), -(long)(block != NULL));
    __libc_free(block);
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    void *mapped =
        FAULT(mmap) ? MAP_FAILED : REAL(mmap)(address, size, protection, flags, fd, offset);

    note(__builtin_return_address(0), mapped != MAP_FAILED);
    return mapped;
}

int munmap(void *address, size_t size)
{
    note(__builtin_return_address(0), -1);
    return REAL(munmap)(address, size);
}

/* What some of them are called by headers with _FORTIFY_SOURCE. */

extern ssize_t __read_chk(int fd, void *buffer, size_t size, size_t room);
extern ssize_t __pread_chk(int fd, void *buffer, size_t size, off_t offset, size_t room);
extern int __poll_chk(struct pollfd *wanted, nfds_t count, int timeout, size_t room);
extern int __open_2(const char *path, int flags);

ssize_t __read_chk(int fd, void *buffer, size_t size, size_t room)
{
    return FAULT(read) || size > room ? -1 : REAL(read)(fd, buffer, size);
}

ssize_t __pread_chk(int fd, void *buffer, size_t size, off_t offset, size_t room)
{
    return FAULT(pread) || size > room ? -1 : REAL(pread)(fd, buffer, size, offset);
}

int __poll_chk(struct pollfd *wanted, nfds_t count, int timeout, size_t room)
{
    return FAULT(poll) || count > room / sizeof(*wanted) ? -1 : REAL(poll)(wanted, count, timeout);
}

int __open_2(const char *path, int flags)
{
    return FAULT(open) ? -1 : REAL(open)(path, flags);
}
