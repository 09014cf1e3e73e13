// What a process says about itself to its C library and to the kernel.
//
// Reason for each: missing in the module map (mallopt), variadic (prctl), hidden without
// `_GNU_SOURCE` (posix_spawn_file_actions_*_np). Apart from CLinux, because
// the programs of the control plane need no I/O engine.
#pragma once

#include <malloc.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <unistd.h>

/// Has threads share this many heaps; false when the C library does not take it.
///
/// Else each thread's reserves 64 MiB of address space, which it hardly uses.
static inline bool cbl_limit_heap_count(int count) {
#ifdef M_ARENA_MAX
    return mallopt(M_ARENA_MAX, count) == 1;
#else
    return false;
#endif
}

/// Has the kernel kill this process when the thread that started it ends.
static inline bool cbl_die_with_parent(void) { return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0; }

/// Has a program to be started work in the directory `path`; an errno, or 0.
int cbl_spawn_change_directory(posix_spawn_file_actions_t *actions, const char *path);

/// Has a program to be started begin without `descriptor` and all above it; an errno, or 0.
int cbl_spawn_close_from(posix_spawn_file_actions_t *actions, int descriptor);
