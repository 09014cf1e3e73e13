// Counts the heap allocations of a thread, for tests.
//
// The test program defines malloc and its relatives itself and forwards to the C library, so
// every allocation of Swift, of C and of libraries is seen. Under a sanitizer, which brings an
// allocator of its own, nothing is replaced and `allocation_counter_is_active` says so.
#pragma once

#include <stdbool.h>
#include <stdint.h>

/// Whether this build counts.
bool allocation_counter_is_active(void);

/// Heap allocations of the calling thread since it began; only ever grows.
uint64_t allocation_counter_thread_count(void);

/// Heap allocations of all threads since the program began; only ever grows.
uint64_t allocation_counter_total_count(void);

/// Where the calling thread's allocation was made, for finding it: aborts at the next one while
/// on, so that a debugger or a core shows the stack.
void allocation_counter_trap(bool on);
