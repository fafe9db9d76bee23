/* A disk that takes its time, for a process that has this in LD_PRELOAD: as long as the file that SLOW_DISK names is there, each call
 * that goes to a file waits, for so many seconds as SLOW_DISK_SECONDS says, or without an end. Whoever begins to wait adds a byte to
 * that file. Sockets and pipes are as fast as ever. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MILLISECONDS_OF_A_LOOK 5

/* By the system's own numbers, for the names of the C library are ours here, and libfaketime's. */
static void wait_for_disk(void) {
  const char *sign = getenv("SLOW_DISK"), *seconds = getenv("SLOW_DISK_SECONDS");
  if (!sign) return;
  int file = (int)syscall(SYS_openat, AT_FDCWD, sign, O_WRONLY | O_APPEND | O_CLOEXEC);
  if (file < 0) return;
  syscall(SYS_write, file, ".", 1);
  syscall(SYS_close, file);
  long looks = seconds ? atol(seconds) * 1000 / MILLISECONDS_OF_A_LOOK : -1;
  while (looks-- != 0 && syscall(SYS_faccessat, AT_FDCWD, sign, F_OK) == 0) {
    struct timespec a_while = {0, MILLISECONDS_OF_A_LOOK * 1000000};
    syscall(SYS_nanosleep, &a_while, NULL);
  }
}

static int is_file(int descriptor) {
  struct stat found;
  return syscall(SYS_fstat, descriptor, &found) == 0 && S_ISREG(found.st_mode);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define BY_PATH(type, name, parameters, ...) \
  type name parameters {                     \
    wait_for_disk();                         \
    return NEXT(name)(__VA_ARGS__);          \
  }

#define BY_DESCRIPTOR(type, name, parameters, ...) \
  type name parameters {                           \
    if (is_file(descriptor)) wait_for_disk();      \
    return NEXT(name)(__VA_ARGS__);                \
  }

#define OPENS(name)                            \
  int name(const char *path, int flags, ...) { \
    va_list rest;                              \
    va_start(rest, flags);                     \
    mode_t mode = va_arg(rest, mode_t);        \
    va_end(rest);                              \
    wait_for_disk();                           \
    return NEXT(name)(path, flags, mode);      \
  }

OPENS(open)
OPENS(open64)
BY_PATH(DIR *, opendir, (const char *path), path)
BY_PATH(int, stat, (const char *path, struct stat *found), path, found)
BY_PATH(int, lstat, (const char *path, struct stat *found), path, found)
BY_PATH(int, stat64, (const char *path, struct stat64 *found), path, found)
BY_PATH(int, lstat64, (const char *path, struct stat64 *found), path, found)
BY_PATH(int, statx, (int in, const char *path, int flags, unsigned mask, struct statx *found), in, path, flags, mask, found)
BY_PATH(int, link, (const char *from, const char *to), from, to)
BY_PATH(int, linkat, (int of, const char *from, int in, const char *to, int flags), of, from, in, to, flags)
BY_PATH(int, rename, (const char *from, const char *to), from, to)
BY_PATH(int, unlink, (const char *path), path)
BY_DESCRIPTOR(ssize_t, read, (int descriptor, void *into, size_t size), descriptor, into, size)
BY_DESCRIPTOR(ssize_t, write, (int descriptor, const void *from, size_t size), descriptor, from, size)
BY_DESCRIPTOR(int, fsync, (int descriptor), descriptor)
BY_DESCRIPTOR(int, fdatasync, (int descriptor), descriptor)
