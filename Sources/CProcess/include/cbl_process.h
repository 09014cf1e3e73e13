// What a process says about itself to the kernel.
//
// Reason: variadic (prctl). Apart from CLinux, because
// the programs of the control plane need no I/O engine.
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <unistd.h>

/// Has the kernel kill this process when the thread that started it ends.
static inline bool cbl_die_with_parent(void) { return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0; }
