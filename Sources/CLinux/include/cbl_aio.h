// libaio and epoll: the second engine.
//
// Reason: struct iocb is a union that imports badly, and the RWF_* and EPOLL* flags are macros
// and enums of several types.
#pragma once

#include <stdlib.h>
#include <stdint.h>
#include <string.h>
#include <errno.h>
#include <stdbool.h>
#include <libaio.h>
#include <sys/epoll.h>

/// Sets up a context for `depth` transfers; returns 0 or -errno.
static inline int cbl_aio_setup(uint32_t depth, io_context_t *context) {
    *context = NULL;
    return io_setup((int)depth, context);
}

static inline void cbl_aio_destroy(io_context_t context) { io_destroy(context); }

static inline void cbl_iocb_transfer(
    struct iocb *cb, bool write, bool durable, int fd, void *bytes, uint64_t byte_count,
    uint64_t offset
) {
    if (write) {
        io_prep_pwrite(cb, fd, bytes, byte_count, (long long)offset);
    } else {
        io_prep_pread(cb, fd, bytes, byte_count, (long long)offset);
    }
    if (durable) cb->aio_rw_flags = 0x00000002; // RWF_DSYNC, <linux/fs.h>
}

static inline void cbl_iocb_flush(struct iocb *cb, int fd) { io_prep_fdsync(cb, fd); }

/// Completion is announced on `event_fd`; `user_data` comes back with it.
static inline void cbl_iocb_mark(struct iocb *cb, uint64_t user_data, int event_fd) {
    cb->data = (void *)(uintptr_t)user_data;
    io_set_eventfd(cb, event_fd);
}

/// Returns how many were taken, or -errno when the first was refused.
static inline int cbl_aio_submit(io_context_t context, uint32_t count, struct iocb **cbs) {
    return io_submit(context, (long)count, cbs);
}

/// Takes finished transfers without waiting; returns their number or -errno.
static inline int cbl_aio_reap(io_context_t context, uint32_t count_max, struct io_event *events) {
    struct timespec zero = {0, 0};
    return io_getevents(context, 0, (long)count_max, events, &zero);
}

static inline uint64_t cbl_aio_user_data(const struct io_event *event) {
    return (uint64_t)(uintptr_t)event->data;
}

static inline int64_t cbl_aio_result(const struct io_event *event) { return (int64_t)event->res; }

static inline int cbl_epoll_create(void) {
    int fd = epoll_create1(EPOLL_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/// Watches both directions of `fd`, edge-triggered: one call per descriptor and lifetime.
static inline int cbl_epoll_watch(int epoll_fd, int fd) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.u64 = (uint32_t)fd;
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 || errno == EEXIST) return 0;
    return -errno;
}

/// Watches `fd` for input, level-triggered.
static inline int cbl_epoll_watch_input(int epoll_fd, int fd) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = EPOLLIN;
    event.data.u64 = (uint32_t)fd;
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

static inline int cbl_epoll_forget(int epoll_fd, int fd) {
    return epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL) == 0 ? 0 : -errno;
}

/// Waits for at most `nanoseconds`, for ever when negative; returns how many events.
int cbl_epoll_wait(int epoll_fd, struct epoll_event *events, int count_max, int64_t nanoseconds);

static inline int cbl_epoll_descriptor(const struct epoll_event *event) {
    return (int)(uint32_t)event->data.u64;
}
