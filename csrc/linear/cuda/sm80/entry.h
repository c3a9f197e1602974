// The CUDA kernels of norm_linear, as the torch side calls them: float32, float16, bfloat16. No torch, no STL.
#pragma once

#include "linear/params.h"

namespace vdiff {

// Bytes of scratch that the plan of p has.
int64_t norm_linear_fwd_scratch(const NormLinearParams& p);
int64_t norm_linear_bwd_scratch(const NormLinearBackwardParams& p);

// The launches of that plan. scratch: aligned to 16 bytes. stream is a cudaStream_t.
void launch_norm_linear_fwd(const NormLinearParams& p, void* scratch, void* stream);
void launch_norm_linear_bwd(const NormLinearBackwardParams& p, void* scratch, void* stream);

}  // namespace vdiff
