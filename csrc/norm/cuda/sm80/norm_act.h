// The CUDA kernels of norm_act, as the torch side calls them. No torch, no STL.
#pragma once

#include "norm/params.h"

namespace vdiff {

// Bytes of scratch that the plan of p has, at an address that 16 divides.
int64_t norm_act_fwd_scratch(const NormActParams& p);
int64_t norm_act_bwd_scratch(const NormActBackwardParams& p);

// The launches of that plan. stream is a cudaStream_t.
void launch_norm_act_fwd(const NormActParams& p, void* scratch, void* stream);
void launch_norm_act_bwd(const NormActBackwardParams& p, void* scratch, void* stream);

}  // namespace vdiff
