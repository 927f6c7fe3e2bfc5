/* Makes one call of read(2), write(2) or their like transfer a single byte: the STRATA_SHORT-th of
 * the process. With STRATA_SHORT_LOG it only counts them, into that file. Preloaded by scripts/faults.
 * Those of /dev/fuse do not count: the kernel takes and gives a message of it whole or not at all, so
 * a byte of a reply would leave its request without one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;

static int is_fuse(int fd)
{
    struct stat stat;
    return fstat(fd, &stat) == 0 && S_ISCHR(stat.st_mode) && stat.st_rdev == makedev(10, 229);
}

static int here(int fd)
{
    static long wanted = -1;
    if (is_fuse(fd))
        return 0;
    if (wanted < 0) {
        const char *text = getenv("STRATA_SHORT");
        wanted = text ? atol(text) : 0;
    }
    return atomic_fetch_add(&calls, 1) + 1 == wanted;
}

__attribute__((destructor)) static void tell(void)
{
    const char *path = getenv("STRATA_SHORT_LOG");
    if (path) {
        char text[32];
        int length = snprintf(text, sizeof text, "%ld\n", (long)calls);
        int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (fd < 0 || write(fd, text, length) != length)
            abort();
        close(fd);
    }
}

#define NEXT(name) \
    static __typeof__(name) *next; \
    if (!next) \
        next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t read(int fd, void *buffer, size_t size)
{
    NEXT(read);
    return next(fd, buffer, here(fd) && size > 1 ? 1 : size);
}

ssize_t write(int fd, const void *buffer, size_t size)
{
    NEXT(write);
    return next(fd, buffer, here(fd) && size > 1 ? 1 : size);
}

ssize_t pread64(int fd, void *buffer, size_t size, off64_t at)
{
    NEXT(pread64);
    return next(fd, buffer, here(fd) && size > 1 ? 1 : size, at);
}

ssize_t pwrite64(int fd, const void *buffer, size_t size, off64_t at)
{
    NEXT(pwrite64);
    return next(fd, buffer, here(fd) && size > 1 ? 1 : size, at);
}

ssize_t readv(int fd, const struct iovec *parts, int count)
{
    NEXT(readv);
    return next(fd, parts, here(fd) && count > 1 ? 1 : count);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    NEXT(writev);
    return next(fd, parts, here(fd) && count > 1 ? 1 : count);
}
