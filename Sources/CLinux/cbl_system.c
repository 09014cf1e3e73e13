#define _GNU_SOURCE
#include "cbl_system.h"
#include "cbl_aio.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/falloc.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int result_or_errno(int result) { return result < 0 ? -errno : result; }

// MARK: files

int cbl_open(const char *path, int flags) {
    int mode = (flags & cbl_open_read_only) ? O_RDONLY : O_RDWR;
    mode |= O_CLOEXEC | O_NOCTTY;
    if (flags & cbl_open_direct) mode |= O_DIRECT;
    if (flags & cbl_open_create) mode |= O_CREAT | O_EXCL;
    // O_EXCL on a block device claims it against mounts and against others that claim.
    struct stat status;
    if (stat(path, &status) == 0 && S_ISBLK(status.st_mode)) mode |= O_EXCL;
    // O_NONBLOCK while opening, so that a FIFO or a tape in the way cannot hang the start.
    int fd = open(path, mode | O_NONBLOCK, 0600);
    if (fd < 0) return -errno;
    int now = fcntl(fd, F_GETFL);
    if (now < 0 || fcntl(fd, F_SETFL, now & ~O_NONBLOCK) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int cbl_lock(int fd, bool read_only) {
    // An open-file-description lock: it goes with the descriptor, whatever else the process opens
    // or closes (a plain fcntl lock would not), and it works over NFS. Readers share.
    struct flock lock = {.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

int cbl_device_kind(int fd, uint64_t *byte_count, uint32_t *direct_alignment) {
    struct stat status;
    if (fstat(fd, &status) < 0) return -errno;
    *direct_alignment = 512;
    if (S_ISREG(status.st_mode)) {
        *byte_count = (uint64_t)status.st_size;
#ifdef STATX_DIOALIGN
        struct statx extended;
        if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &extended) == 0
            && (extended.stx_mask & STATX_DIOALIGN) && extended.stx_dio_offset_align) {
            *direct_alignment = extended.stx_dio_offset_align;
        }
#endif
        return 0;
    }
    if (!S_ISBLK(status.st_mode)) return -EINVAL;
    int logical = 512;
    if (ioctl(fd, BLKGETSIZE64, byte_count) < 0 || ioctl(fd, BLKSSZGET, &logical) < 0) {
        return -errno;
    }
    *direct_alignment = (uint32_t)logical;
    return 1;
}

int cbl_truncate(int fd, uint64_t byte_count) {
    return result_or_errno(ftruncate(fd, (off_t)byte_count));
}

int cbl_allocate(int fd, uint64_t byte_count) { return -posix_fallocate(fd, 0, (off_t)byte_count); }

int cbl_write_zeroes(int fd, uint64_t byte_count) {
    enum { chunk = 1 << 20 };
    void *zeroes = NULL;
    if (posix_memalign(&zeroes, 4096, chunk) != 0) return -ENOMEM;
    memset(zeroes, 0, chunk);
    uint64_t offset = 0;
    int result = 0;
    while (offset < byte_count) {
        uint64_t left = byte_count - offset;
        ssize_t n = pwrite(fd, zeroes, left < chunk ? left : chunk, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            result = n < 0 ? -errno : -ENOSPC;
            break;
        }
        offset += (uint64_t)n;
    }
    free(zeroes);
    return result;
}

int cbl_flush(int fd) { return result_or_errno(fdatasync(fd)); }

int cbl_flush_directory_of(const char *path) {
    char directory[4096];
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    if (length >= sizeof directory) return -ENAMETOOLONG;
    if (!slash) {
        strcpy(directory, ".");
    } else if (length == 0) {
        strcpy(directory, "/");
    } else {
        memcpy(directory, path, length);
        directory[length] = 0;
    }
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    int result = result_or_errno(fsync(fd));
    close(fd);
    return result;
}

int cbl_discard(int fd, bool is_block_device, uint64_t offset, uint64_t byte_count) {
    if (is_block_device) {
        uint64_t range[2] = {offset, byte_count};
        return result_or_errno(ioctl(fd, BLKDISCARD, range));
    }
    return result_or_errno(
        fallocate(fd, (int)cbl_punch_hole_mode(), (off_t)offset, (off_t)byte_count));
}

int cbl_close(int fd) { return result_or_errno(close(fd)); }

int cbl_duplicate(int fd) { return result_or_errno(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

int cbl_unlink(const char *path) { return result_or_errno(unlink(path)); }

uint32_t cbl_punch_hole_mode(void) { return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE; }

// MARK: sockets

/// -errno for a getaddrinfo failure: the name, not the network, is at fault.
static int resolve(const char *host, uint16_t port, bool passive, struct addrinfo **list) {
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0),
    };
    int code = getaddrinfo(host && *host ? host : NULL, service, &hints, list);
    if (code == 0) return 0;
    if (code == EAI_SYSTEM) return -errno;
    return code == EAI_MEMORY ? -ENOMEM : -EADDRNOTAVAIL;
}

static uint16_t bound_port(int fd) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0) return 0;
    if (address.ss_family == AF_INET) return ntohs(((struct sockaddr_in *)&address)->sin_port);
    return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
}

int cbl_listen_tcp(const char *host, uint16_t *port, int backlog) {
    struct addrinfo *list = NULL;
    int error = resolve(host, *port, true, &list);
    if (error < 0) return error;
    error = -EADDRNOTAVAIL;
    for (struct addrinfo *a = list; a; a = a->ai_next) {
        int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) {
            error = -errno;
            continue;
        }
        int on = 1;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, backlog) == 0) {
            *port = bound_port(fd);
            freeaddrinfo(list);
            return fd;
        }
        error = -errno;
        close(fd);
    }
    freeaddrinfo(list);
    return error;
}

static int unix_address(const char *path, struct sockaddr_un *address) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof address->sun_path) return -ENAMETOOLONG;
    memcpy(address->sun_path, path, length);
    return 0;
}

int cbl_listen_unix(const char *path, uint32_t mode, int backlog) {
    struct sockaddr_un address;
    int error = unix_address(path, &address);
    if (error < 0) return error;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    // The mode is set between bind and listen: before listen nobody can connect.
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        error = -errno;
        close(fd);
        return error;
    }
    if (chmod(path, mode) < 0 || listen(fd, backlog) < 0) {
        error = -errno;
        close(fd);
        unlink(path);
        return error;
    }
    return fd;
}

int cbl_unix_answers(const char *path) {
    int fd = cbl_connect_unix(path);
    if (fd >= 0) {
        close(fd);
        return 1;
    }
    if (fd == -ECONNREFUSED) return 0;
    return fd == -EAGAIN ? 1 : fd; // a full backlog is an answer too
}

int cbl_is_socket(const char *path) {
    struct stat status;
    if (lstat(path, &status) < 0) return -errno;
    return S_ISSOCK(status.st_mode);
}

int cbl_connect_tcp(const char *host, uint16_t port) {
    struct addrinfo *list = NULL;
    int error = resolve(host, port, false, &list);
    if (error < 0) return error;
    error = -EADDRNOTAVAIL;
    for (struct addrinfo *a = list; a; a = a->ai_next) {
        int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) {
            error = -errno;
            continue;
        }
        if (connect(fd, a->ai_addr, a->ai_addrlen) == 0 || errno == EINPROGRESS) {
            cbl_set_no_delay(fd);
            freeaddrinfo(list);
            return fd;
        }
        error = -errno;
        close(fd);
    }
    freeaddrinfo(list);
    return error;
}

int cbl_connect_unix(const char *path) {
    struct sockaddr_un address;
    int error = unix_address(path, &address);
    if (error < 0) return error;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

int cbl_accept(int fd) {
    return result_or_errno(accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

int cbl_set_no_delay(int fd) {
    int on = 1;
    return result_or_errno(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
}

int cbl_set_buffer_byte_counts(int fd, int send_byte_count, int receive_byte_count) {
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_byte_count, sizeof send_byte_count) < 0
        || setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_byte_count, sizeof receive_byte_count) < 0) {
        return -errno;
    }
    return 0;
}

int cbl_set_local_send_buffer(int fd, int byte_count) {
    int domain = 0;
    socklen_t length = sizeof domain;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0) return -errno;
    if (domain != AF_UNIX) return 0;
    // The first goes beyond net.core.wmem_max, for those who may.
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &byte_count, sizeof byte_count) == 0) return 0;
    return result_or_errno(
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &byte_count, sizeof byte_count));
}

int cbl_socket_pair(int fds[2]) {
    return result_or_errno(
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
}

int cbl_try_receive(int fd, void *bytes, size_t byte_count) {
    return result_or_errno((int)recv(fd, bytes, byte_count, MSG_DONTWAIT));
}

int cbl_try_send_vector(int fd, const void *vector, uint32_t count) {
    struct msghdr message = {.msg_iov = (struct iovec *)vector, .msg_iovlen = count};
    return result_or_errno((int)sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL));
}

// MARK: waking

int cbl_event_create(bool non_blocking) {
    return result_or_errno(eventfd(0, EFD_CLOEXEC | (non_blocking ? EFD_NONBLOCK : 0)));
}

int cbl_event_signal(int fd) {
    uint64_t one = 1;
    return write(fd, &one, sizeof one) < 0 ? -errno : 0;
}

int cbl_event_consume(int fd) {
    uint64_t count;
    return read(fd, &count, sizeof count) < 0 ? -errno : 0;
}

int cbl_epoll_wait(int epoll_fd, struct epoll_event *events, int count_max, int64_t nanoseconds) {
    struct timespec ts = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    int count = epoll_pwait2(epoll_fd, events, count_max, nanoseconds < 0 ? NULL : &ts, NULL);
    if (count < 0 && errno == ENOSYS) {
        // Before Linux 5.11: milliseconds, rounded up so that a deadline is never early.
        int64_t ms = nanoseconds < 0 ? -1 : (nanoseconds + 999999) / 1000000;
        count = epoll_wait(epoll_fd, events, count_max, ms > INT32_MAX ? INT32_MAX : (int)ms);
    }
    return result_or_errno(count);
}

// MARK: limits, clock, threads

uint64_t cbl_raise_locked_memory_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0) return 0;
    if (limit.rlim_cur != limit.rlim_max) {
        struct rlimit raised = {limit.rlim_max, limit.rlim_max};
        if (setrlimit(RLIMIT_MEMLOCK, &raised) == 0) limit = raised;
    }
    return limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : (uint64_t)limit.rlim_cur;
}

uint64_t cbl_now_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void cbl_name_thread(const char *name) { prctl(PR_SET_NAME, name); }

int cbl_thread_start(uint64_t *thread, void *(*body)(void *), void *context) {
    pthread_t created;
    int error = pthread_create(&created, NULL, body, context);
    if (error) return -error;
    *thread = (uint64_t)created;
    return 0;
}

int cbl_thread_join(uint64_t thread) { return -pthread_join((pthread_t)thread, NULL); }

void cbl_error_text(int error, char *text, size_t byte_count) {
    // The GNU strerror_r may return a constant instead of filling the buffer.
    const char *found = strerror_r(error, text, byte_count);
    if (found != text) {
        snprintf(text, byte_count, "%s", found);
    }
}
