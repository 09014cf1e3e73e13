// Memory and checksum primitives that Swift cannot reach directly.
//
// Reason for each: mmap flags are function-like macros in some libc versions (not importable);
// ISA-L's header declares the CRC with the un-inverted convention, which is fixed up here.
#pragma once

#include <stdlib.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <isa-l/crc.h>

/// Anonymous, private, page-aligned, zeroed memory; NULL when the kernel refuses.
static inline void *cbl_map_anonymous(size_t byte_count) {
    void *p = mmap(NULL, byte_count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static inline void cbl_unmap(void *base, size_t byte_count) {
    munmap(base, byte_count);
}

/// CRC-32C of `byte_count` bytes, continuing from `crc` (0 to start).
///
/// The bytes are asked for first, line by line. ISA-L reads three streams of a few hundred bytes,
/// too short for the hardware's own prefetching: data fresh from a device takes 0.4 µs for 4 KiB
/// instead of 0.8, data already in the cache 0.25 instead of 0.22.
static inline uint32_t cbl_crc32c(uint32_t crc, const void *bytes, size_t byte_count) {
    for (size_t offset = 0; offset < byte_count; offset += 64) {
        __builtin_prefetch((const char *)bytes + offset);
    }
    return ~crc32_iscsi((unsigned char *)bytes, (int)byte_count, ~crc);
}
