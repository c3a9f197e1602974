// The CUDA kernels of attention, as the torch side calls them: float32, float16, bfloat16. No torch, no STL.
#pragma once

#include "attention/params.h"

namespace vdiff {

// Bytes of scratch that the plan of p has.
int64_t temporal_attention_fwd_scratch(const TemporalAttentionFwdParams& p);
int64_t temporal_attention_bwd_scratch(const TemporalAttentionBwdParams& p);
int64_t spatial_attention_fwd_scratch(const SpatialAttentionFwdParams& p);
int64_t spatial_attention_bwd_scratch(const SpatialAttentionBwdParams& p);

// The launches of that plan. scratch: aligned to 16 bytes. stream is a cudaStream_t.
void launch_temporal_attention_fwd(const TemporalAttentionFwdParams& p, void* scratch, void* stream);
void launch_temporal_attention_bwd(const TemporalAttentionBwdParams& p, void* scratch, void* stream);
void launch_spatial_attention_fwd(const SpatialAttentionFwdParams& p, void* scratch, void* stream);
void launch_spatial_attention_bwd(const SpatialAttentionBwdParams& p, void* scratch, void* stream);

}  // namespace vdiff
