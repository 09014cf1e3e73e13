#include "allocation_counter.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) \
    || __has_feature(memory_sanitizer)
#define COUNTER_INACTIVE 1
#endif
#endif

// The thread-local storage is in the program itself, so reading it never allocates.
static _Thread_local uint64_t thread_count;
static _Thread_local bool trap_next;
static uint64_t total_count;

bool allocation_counter_is_active(void) {
#ifdef COUNTER_INACTIVE
    return false;
#else
    return true;
#endif
}

uint64_t allocation_counter_thread_count(void) { return thread_count; }

uint64_t allocation_counter_total_count(void) {
    return __atomic_load_n(&total_count, __ATOMIC_RELAXED);
}

void allocation_counter_trap(bool on) { trap_next = on; }

#ifndef COUNTER_INACTIVE

// glibc's own names for what it would have run; exported for exactly this purpose.
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static void count(void) {
    if (trap_next) abort();
    thread_count++;
    __atomic_fetch_add(&total_count, 1, __ATOMIC_RELAXED);
}

void *malloc(size_t size) {
    count();
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
    count();
    return __libc_calloc(number, size);
}

void *realloc(void *old, size_t size) {
    count();
    return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size) {
    count();
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    count();
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **result, size_t alignment, size_t size) {
    if (alignment % sizeof(void *) != 0 || (alignment & (alignment - 1)) != 0) return EINVAL;
    count();
    void *memory = __libc_memalign(alignment, size);
    if (!memory) return ENOMEM;
    *result = memory;
    return 0;
}

void free(void *memory) { __libc_free(memory); }

#endif
