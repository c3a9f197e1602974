// The CUDA kernels of geglu, as the torch side calls them: float32, float16, bfloat16. No torch, no STL.
#pragma once

#include "feedforward/params.h"

namespace vdiff {

// Bytes of scratch that the plan of p has.
int64_t geglu_bwd_scratch(const GegluBackwardParams& p);

// The launches of a plan. The weight's rows have unit stride. scratch: aligned to 16 bytes. stream is a cudaStream_t.
void launch_geglu_fwd(const GegluParams& p, void* stream);
void launch_geglu_bwd(const GegluBackwardParams& p, void* scratch, void* stream);

}  // namespace vdiff
