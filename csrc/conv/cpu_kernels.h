// The CPU kernels of this folder. No torch, no STL.
#pragma once

#include "conv/params.h"

namespace vdiff {

void cpu_norm_act_conv(const NormActConvParams& p);
void cpu_norm_act_conv_backward(const NormActConvBackwardParams& p);

}  // namespace vdiff
