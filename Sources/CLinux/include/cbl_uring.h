// io_uring through liburing, as far as Swift cannot reach it.
//
// Reason: the prep functions fill unions and read the ring through macros and barriers, and the
// flags are macros with casts. Nothing here decides anything.
//
// <stdlib.h> comes first: liburing.h defines _XOPEN_SOURCE, which must not change what the other
// headers of this module declare.
#pragma once

#include <stdlib.h>
#include <stdint.h>
#include <string.h>
#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <liburing.h>

enum {
    cbl_uring_base_flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
    cbl_uring_coop_flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
    cbl_uring_disabled_flag = IORING_SETUP_R_DISABLED,
    cbl_uring_needed_features = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_FAST_POLL,
};

/// Sets up a ring; returns 0 or -errno.
static inline int cbl_uring_setup(
    struct io_uring *ring, uint32_t entries, uint32_t cq_entries, uint32_t flags
) {
    struct io_uring_params params;
    memset(&params, 0, sizeof params);
    params.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    params.cq_entries = cq_entries;
    return io_uring_queue_init_params(entries, ring, &params);
}

/// Enables a ring made with R_DISABLED: the caller becomes its submitter.
///
/// Debian's liburing 2.3 declares io_uring_enable_rings and forgets to export it.
static inline int cbl_uring_enable(struct io_uring *ring) {
    return io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

static inline bool cbl_uring_has_needed_features(const struct io_uring *ring) {
    return (ring->features & cbl_uring_needed_features) == cbl_uring_needed_features;
}

static inline uint32_t cbl_uring_cq_entries(const struct io_uring *ring) {
    return ring->cq.ring_entries;
}

/// Whether the kernel knows every operation that the reactor uses.
static inline bool cbl_uring_has_operations(struct io_uring *ring) {
    static const uint8_t needed[] = {
        IORING_OP_NOP, IORING_OP_READ, IORING_OP_WRITE, IORING_OP_READ_FIXED,
        IORING_OP_WRITE_FIXED, IORING_OP_FSYNC, IORING_OP_FALLOCATE, IORING_OP_POLL_ADD,
        IORING_OP_ACCEPT, IORING_OP_RECV, IORING_OP_SENDMSG, IORING_OP_ASYNC_CANCEL,
    };
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    if (!probe) return false;
    bool all = true;
    for (size_t i = 0; i < sizeof needed; i++) {
        all = all && io_uring_opcode_supported(probe, needed[i]);
    }
    io_uring_free_probe(probe);
    return all;
}

/// Completions to fetch only by entering the kernel: deferred task work or a full queue.
static inline bool cbl_uring_needs_enter(const struct io_uring *ring) {
    return (IO_URING_READ_ONCE(*ring->sq.kflags) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) != 0;
}

static inline uint32_t cbl_uring_ready_count(const struct io_uring *ring) {
    return io_uring_cq_ready(ring);
}

/// Takes the oldest completion; false when there is none.
static inline bool cbl_uring_pop(struct io_uring *ring, uint64_t *user_data, int32_t *result) {
    unsigned head = *ring->cq.khead;
    if (head == io_uring_smp_load_acquire(ring->cq.ktail)) return false;
    const struct io_uring_cqe *cqe = &ring->cq.cqes[head & ring->cq.ring_mask];
    *user_data = cqe->user_data;
    *result = cqe->res;
    io_uring_cq_advance(ring, 1);
    return true;
}

/// Submits, then waits for a completion for at most `nanoseconds`, or for ever when negative.
static inline int cbl_uring_submit_and_wait(struct io_uring *ring, int64_t nanoseconds) {
    struct io_uring_cqe *cqe = NULL;
    struct __kernel_timespec ts = {
        .tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000,
    };
    return io_uring_submit_and_wait_timeout(ring, &cqe, 1, nanoseconds < 0 ? NULL : &ts, NULL);
}

// MARK: preparation. `sqe` comes from io_uring_get_sqe and is never NULL here.

static inline void cbl_sqe_mark(struct io_uring_sqe *sqe, uint64_t user_data, bool fixed_file) {
    sqe->user_data = user_data;
    if (fixed_file) sqe->flags |= IOSQE_FIXED_FILE;
}

/// `buffer` is the index of the registered buffer, or negative for none.
static inline void cbl_sqe_transfer(
    struct io_uring_sqe *sqe, bool write, bool durable, int fd, void *bytes, uint32_t byte_count,
    uint64_t offset, int buffer
) {
    if (write && buffer >= 0) {
        io_uring_prep_write_fixed(sqe, fd, bytes, byte_count, offset, buffer);
    } else if (write) {
        io_uring_prep_write(sqe, fd, bytes, byte_count, offset);
    } else if (buffer >= 0) {
        io_uring_prep_read_fixed(sqe, fd, bytes, byte_count, offset, buffer);
    } else {
        io_uring_prep_read(sqe, fd, bytes, byte_count, offset);
    }
    if (durable) sqe->rw_flags = 0x00000002; // RWF_DSYNC, <linux/fs.h>
}

static inline void cbl_sqe_flush(struct io_uring_sqe *sqe, int fd) {
    io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
}

static inline void cbl_sqe_fallocate(
    struct io_uring_sqe *sqe, int fd, uint32_t mode, uint64_t offset, uint64_t byte_count
) {
    io_uring_prep_fallocate(sqe, fd, (int)mode, (off_t)offset, (off_t)byte_count);
}

static inline void cbl_sqe_accept(struct io_uring_sqe *sqe, int fd) {
    io_uring_prep_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

static inline void cbl_sqe_receive(
    struct io_uring_sqe *sqe, int fd, void *bytes, uint32_t byte_count
) {
    io_uring_prep_recv(sqe, fd, bytes, byte_count, 0);
}

/// `message` stays valid until the completion: the kernel may read it when it retries.
static inline void cbl_sqe_send_message(
    struct io_uring_sqe *sqe, int fd, const struct msghdr *message
) {
    io_uring_prep_sendmsg(sqe, fd, message, MSG_NOSIGNAL | MSG_WAITALL);
}

static inline void cbl_message_set(struct msghdr *message, void *vector, uint32_t count) {
    memset(message, 0, sizeof *message);
    message->msg_iov = vector;
    message->msg_iovlen = count;
}

static inline void cbl_sqe_event(struct io_uring_sqe *sqe, int fd, uint64_t *counter) {
    io_uring_prep_read(sqe, fd, counter, 8, 0);
}

static inline void cbl_sqe_cancel(struct io_uring_sqe *sqe, uint64_t user_data) {
    io_uring_prep_cancel64(sqe, user_data, 0);
}

static inline int cbl_uring_register_buffers(
    struct io_uring *ring, const void *vector, uint32_t count
) {
    return io_uring_register_buffers(ring, vector, count);
}

static inline void cbl_cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}
