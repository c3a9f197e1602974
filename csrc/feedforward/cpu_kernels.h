// The CPU kernels of this folder. No torch, no STL.
#pragma once

#include "feedforward/params.h"

namespace vdiff {

void cpu_geglu(const GegluParams& p);
void cpu_geglu_backward(const GegluBackwardParams& p);

}  // namespace vdiff
