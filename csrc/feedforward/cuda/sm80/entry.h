// The CUDA kernels of geglu, as the torch side calls them: float32, float16, bfloat16. No torch, no STL.
#pragma once

#include "feedforward/params.h"

namespace vdiff {

// stream is a cudaStream_t. The weight's rows have unit stride.
void launch_geglu_fwd(const GegluParams& p, void* stream);

}  // namespace vdiff
