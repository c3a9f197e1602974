// The CUDA kernels of the convolutions, as the torch side calls them: float32, float16, bfloat16. No torch, no STL.
#pragma once

#include "conv/params.h"

namespace vdiff {

// Bytes of scratch that the plan of p has.
int64_t norm_act_conv_fwd_scratch(const NormActConvParams& p);
int64_t norm_act_conv_bwd_scratch(const NormActConvBackwardParams& p);

// The launches of that plan. scratch: aligned to 16 bytes. stream is a cudaStream_t.
void launch_norm_act_conv_fwd(const NormActConvParams& p, void* scratch, void* stream);
void launch_norm_act_conv_bwd(const NormActConvBackwardParams& p, void* scratch, void* stream);

}  // namespace vdiff
