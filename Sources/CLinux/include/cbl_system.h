// Files, sockets, clock and threads: calls that Swift cannot make, or not without a trap.
//
// Reason for each: variadic (open, fcntl, ioctl), needs _GNU_SOURCE (accept4, O_DIRECT, affinity,
// fallocate; a header that Swift imports must not define it, so the bodies are in cbl_system.c),
// or passes through a struct whose fields are macros (sockaddr_in6, msghdr).
//
// Every call returns what it made (0 or more) or -errno: errno itself never crosses into Swift.
#pragma once

#include <stdlib.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <errno.h>

// MARK: files

enum {
    cbl_open_direct = 1,
    cbl_open_create = 2,
    cbl_open_read_only = 4,
};

int cbl_open(const char *path, int flags);
/// Locks the whole file, shared when read-only, else exclusively; -EAGAIN when somebody has it.
int cbl_lock(int fd, bool read_only);
/// 0 for a regular file, 1 for a block device, -EINVAL for anything else.
int cbl_device_kind(int fd, uint64_t *byte_count, uint32_t *direct_alignment);
int cbl_truncate(int fd, uint64_t byte_count);
int cbl_allocate(int fd, uint64_t byte_count);
int cbl_write_zeroes(int fd, uint64_t byte_count);
int cbl_flush(int fd);
int cbl_flush_directory_of(const char *path);
/// Gives a range back; the caller treats "not supported" as done.
int cbl_discard(int fd, bool is_block_device, uint64_t offset, uint64_t byte_count);
int cbl_close(int fd);
int cbl_duplicate(int fd);
int cbl_unlink(const char *path);
/// FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE.
uint32_t cbl_punch_hole_mode(void);

// MARK: sockets

/// One bound, listening, non-blocking TCP socket; the port it got goes to `port`.
int cbl_listen_tcp(const char *host, uint16_t *port, int backlog);
int cbl_listen_unix(const char *path, uint32_t mode, int backlog);
/// 1 when something answers on the unix socket, 0 when nobody does, -errno otherwise.
int cbl_unix_answers(const char *path);
/// 1 when `path` is a socket, 0 when it is anything else, -errno otherwise.
int cbl_is_socket(const char *path);
int cbl_connect_tcp(const char *host, uint16_t port);
int cbl_connect_unix(const char *path);
int cbl_accept(int fd);
int cbl_set_no_delay(int fd);
/// Sets how much a unix socket takes before it is full; leaves TCP, which finds out by itself.
int cbl_set_local_send_buffer(int fd, int byte_count);
int cbl_set_buffer_byte_counts(int fd, int send_byte_count, int receive_byte_count);
int cbl_socket_pair(int fds[2]);
/// -EAGAIN when it would block.
int cbl_try_receive(int fd, void *bytes, size_t byte_count);
/// `vector` is an array of struct iovec. -EAGAIN when it would block.
int cbl_try_send_vector(int fd, const void *vector, uint32_t count);

// MARK: waking

int cbl_event_create(bool non_blocking);
int cbl_event_signal(int fd);
int cbl_event_consume(int fd);

// MARK: limits, clock, threads

/// Raises RLIMIT_MEMLOCK to its hard limit; returns the limit in bytes, UINT64_MAX for none.
uint64_t cbl_raise_locked_memory_limit(void);
uint64_t cbl_now_nanoseconds(void);
/// Name of at most 15 bytes for the calling thread.
void cbl_name_thread(const char *name);
/// Runs `body(context)` on a new thread; 0 and `*thread`, or -errno.
int cbl_thread_start(uint64_t *thread, void *(*body)(void *), void *context);
int cbl_thread_join(uint64_t thread);
/// The text of an errno, copied into `text`, always terminated.
void cbl_error_text(int error, char *text, size_t byte_count);
