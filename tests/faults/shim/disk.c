/*
 * A disk that fails, stops or keeps a record: loaded with LD_PRELOAD before SQLite's calls reach the kernel.
 *
 * It looks at one database: the file at the watched path, and those whose names begin with it (-wal, -journal,
 * -replay-...), but not -shm, which is shared memory and is made anew after a crash. Operations on these files
 * are counted: write, truncate, sync, and unlink. The chosen one fails, or the process is killed at it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_DESCRIPTORS 4096
#define MAX_PATH_LENGTH 1024
enum { NOT_WATCHED = 0, DATABASE = 1, WAL = 2, JOURNAL = 3, DIRECTORY = 4, OTHER = 5 };
enum { NEVER = 0, FAIL_WRITE = 1, FAIL_SYNC = 2, KILL_BEFORE = 3, KILL_AFTER = 4 };

struct record {
    char operation; /* c reate, w rite, t runcate, s ync, u nlink, n ote */
    char file;
    int64_t offset; /* of a truncate: the new length */
    int64_t length; /* of the bytes that follow */
};

static char watched[MAX_PATH_LENGTH], folder[MAX_PATH_LENGTH];
static char files[MAX_DESCRIPTORS];
static int record_to = -1;
static int what = NEVER, with_error, is_lasting;
static long left, counted, hits;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* -- what the tests call ---------------------------------------------------------------------- */

void disk_watch(const char *path) {
    strncpy(watched, path, sizeof watched - 1);
    strncpy(folder, path, sizeof folder - 1);
    *strrchr(folder, '/') = 0;
}

void disk_record(const char *path) {
    record_to = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* At the nth operation from now on of the kind that can fail so: fail with an error, or be killed. */
void disk_arm(int kind, long nth, int error, int lasting) {
    pthread_mutex_lock(&lock);
    what = kind, left = nth, with_error = error, is_lasting = lasting, counted = hits = 0;
    pthread_mutex_unlock(&lock);
}

long disk_hits(void) { return hits; }
long disk_counted(void) { return counted; }

static void keep(char operation, char file, int64_t offset, const void *bytes, int64_t length) {
    if (record_to < 0 || file == OTHER) return;
    struct record record;
    memset(&record, 0, sizeof record);
    record.operation = operation, record.file = file, record.offset = offset, record.length = length;
    struct iovec parts[] = {{&record, sizeof record}, {(void *)bytes, length}};
    syscall(SYS_writev, record_to, parts, length ? 2 : 1); /* at once: other processes record, too */
}

void disk_note(const char *text) {
    pthread_mutex_lock(&lock);
    keep('n', 0, 0, text, strlen(text));
    pthread_mutex_unlock(&lock);
}

/* -- what SQLite calls ------------------------------------------------------------------------ */

static char kind_of(const char *path) {
    size_t length = strlen(watched);
    if (!length) return NOT_WATCHED;
    if (!strcmp(path, folder)) return DIRECTORY;
    if (strncmp(path, watched, length)) return NOT_WATCHED;
    const char *rest = path + length;
    if (!*rest) return DATABASE;
    if (!strcmp(rest, "-wal")) return WAL;
    if (!strcmp(rest, "-journal")) return JOURNAL;
    return strcmp(rest, "-shm") ? OTHER : NOT_WATCHED;
}

static char file_of(int descriptor) {
    return descriptor >= 0 && descriptor < MAX_DESCRIPTORS ? files[descriptor] : NOT_WATCHED;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/*
 * Count an operation; whether it is to fail. The lock is held. A folder's sync never does: SQLite asks for it,
 * and does not look at the answer.
 */
static int fails(char file, int is_sync) {
    if (file == DIRECTORY) return 0;
    if ((what == FAIL_WRITE && is_sync) || (what == FAIL_SYNC && !is_sync)) return 0;
    counted++;
    if (what == NEVER) return 0;
    if (left != 1) {
        left--;
        return 0;
    }
    if (what == KILL_BEFORE) die();
    left = is_lasting; /* 1: the next one fails, too */
    if (what == KILL_AFTER) return 0;
    hits++;
    errno = with_error;
    return 1;
}

static void done(void) {
    if (what == KILL_AFTER && counted && !left) die();
}

#define WATCHED(descriptor, is_sync, call, note)      \
    char file = file_of(descriptor);                  \
    if (!file) return call;                           \
    pthread_mutex_lock(&lock);                        \
    __typeof__(call) result = -1;                     \
    if (!fails(file, is_sync)) {                            \
        result = call;                                \
        int saved = errno;                            \
        if (result >= 0) note;                        \
        done();                                       \
        errno = saved;                                \
    }                                                 \
    pthread_mutex_unlock(&lock);                      \
    return result;

static int opened(int descriptor, const char *path, int is_new) {
    if (descriptor < 0 || descriptor >= MAX_DESCRIPTORS) return descriptor;
    int saved = errno;
    files[descriptor] = kind_of(path);
    if (is_new && files[descriptor] != NOT_WATCHED && files[descriptor] != DIRECTORY) {
        pthread_mutex_lock(&lock);
        keep('c', files[descriptor], 0, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    errno = saved;
    return descriptor;
}

#define OPEN(name)                                                   \
    int name(const char *path, int flags, ...) {                     \
        va_list rest;                                                \
        va_start(rest, flags);                                       \
        int mode = va_arg(rest, int);                                \
        va_end(rest);                                                \
        struct stat before;                                          \
        int is_new = (flags & O_CREAT) && stat(path, &before) != 0;  \
        return opened(REAL(name)(path, flags, mode), path, is_new);  \
    }
OPEN(open)
OPEN(open64)

int close(int descriptor) {
    if (descriptor >= 0 && descriptor < MAX_DESCRIPTORS) files[descriptor] = NOT_WATCHED;
    return REAL(close)(descriptor);
}

ssize_t write(int descriptor, const void *bytes, size_t length) {
    WATCHED(descriptor, 0, REAL(write)(descriptor, bytes, length),
            keep('w', file, lseek(descriptor, 0, SEEK_CUR) - result, bytes, result))
}

ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t offset) {
    WATCHED(descriptor, 0, REAL(pwrite)(descriptor, bytes, length, offset),
            keep('w', file, offset, bytes, result))
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off64_t offset) {
    WATCHED(descriptor, 0, REAL(pwrite64)(descriptor, bytes, length, offset),
            keep('w', file, offset, bytes, result))
}

int ftruncate(int descriptor, off_t length) {
    WATCHED(descriptor, 0, REAL(ftruncate)(descriptor, length), keep('t', file, length, NULL, 0))
}

int ftruncate64(int descriptor, off64_t length) {
    WATCHED(descriptor, 0, REAL(ftruncate64)(descriptor, length), keep('t', file, length, NULL, 0))
}

int fsync(int descriptor) {
    WATCHED(descriptor, 1, REAL(fsync)(descriptor), keep('s', file, 0, NULL, 0))
}

int fdatasync(int descriptor) {
    WATCHED(descriptor, 1, REAL(fdatasync)(descriptor), keep('s', file, 0, NULL, 0))
}

int unlink(const char *path) {
    char file = kind_of(path);
    if (!file || file == DIRECTORY) return REAL(unlink)(path);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (!fails(file, 0)) {
        result = REAL(unlink)(path);
        int saved = errno;
        if (!result) keep('u', file, 0, NULL, 0);
        done();
        errno = saved;
    }
    pthread_mutex_unlock(&lock);
    return result;
}
