// The CPU kernels of this folder. No torch, no STL.
#pragma once

#include "common/cpu/isa.h"
#include "feedforward/params.h"

namespace vdiff {

VDIFF_CPU_KERNEL(cpu_geglu, GegluParams)
VDIFF_CPU_KERNEL(cpu_geglu_backward, GegluBackwardParams)

}  // namespace vdiff
