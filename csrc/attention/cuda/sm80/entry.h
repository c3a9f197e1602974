// The CUDA kernels of this folder, as the torch side calls them: float32, float16, bfloat16. No torch, no STL.
#pragma once

#include "attention/params.h"

namespace vdiff {

// Whether the kernels of short sequences serve this: their backward needs neither out nor lse.
bool is_short_attention(int64_t L, int64_t S, int64_t D, DType dtype);

// Bytes of scratch that the launch of p needs.
int64_t temporal_attention_fwd_scratch(const TemporalAttentionFwdParams& p);
int64_t temporal_attention_bwd_scratch(const TemporalAttentionBwdParams& p);
int64_t spatial_attention_fwd_scratch(const SpatialAttentionFwdParams& p);
int64_t spatial_attention_bwd_scratch(const SpatialAttentionBwdParams& p);

// scratch: aligned to 16 bytes. stream is a cudaStream_t.
void launch_temporal_attention_fwd(const TemporalAttentionFwdParams& p, void* scratch, void* stream);
void launch_temporal_attention_bwd(const TemporalAttentionBwdParams& p, void* scratch, void* stream);
void launch_spatial_attention_fwd(const SpatialAttentionFwdParams& p, void* scratch, void* stream);
void launch_spatial_attention_bwd(const SpatialAttentionBwdParams& p, void* scratch, void* stream);

}  // namespace vdiff
