// The CPU kernels of this folder. No torch, no STL.
#pragma once

#include "common/cpu/isa.h"
#include "conv/params.h"

namespace vdiff {

VDIFF_CPU_KERNEL(cpu_norm_act_conv, NormActConvParams)
VDIFF_CPU_KERNEL(cpu_norm_act_conv_backward, NormActConvBackwardParams)

}  // namespace vdiff
