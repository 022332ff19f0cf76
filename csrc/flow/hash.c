/* The key of a hash table. */
#include "flow.h"

#include <sys/auxv.h>
#if defined(__GLIBC__) && __GLIBC__ == 2 && __GLIBC_MINOR__ < 25 /* it has no function for it */
#include <linux/random.h>
#include <sys/syscall.h>
#include <unistd.h>
#define getrandom(data, size, flags) syscall(SYS_getrandom, data, size, flags)
#else
#include <sys/random.h>
#endif

int hash_key_new(struct hash_key *key)
{
    const void *at_start;

    if (getrandom(key, sizeof(*key), GRND_NONBLOCK) == (ssize_t)sizeof(*key))
        return 0;
    /* A policy forbids it, or the kernel has no randomness yet. The bytes that the kernel gave this
       program at its start are as good, but the same for all tables. */
    at_start = (const void *)getauxval(AT_RANDOM);
    if (!at_start)
        return -ENOSYS;
    memcpy(key, at_start, sizeof(*key));
    return 0;
}
