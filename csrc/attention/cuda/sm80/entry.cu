#include "attention/cuda/sm80/entry.h"

#include "attention/cuda/plan.h"
#include "attention/cuda/sm80/instantiations.h"
#include "attention/cuda/sm80/rotary_table.cuh"
#include "attention/cuda/to_sequences.h"
#include "common/cuda/launch.cuh"

namespace vdiff {

using namespace attention;

namespace {

// The table of cosines and sines, at the front of the scratch.
const float2* launch_rotary_table(const TemporalAttentionParams& p, const RotaryPlan& plan, void* scratch, cudaStream_t stream) {
  if (p.rotary == nullptr) return nullptr;
  auto* const table = static_cast<float2*>(scratch);
  const auto* const angles = static_cast<const float*>(p.rotary);
  launch("rotary_table_kernel", rotary_table_kernel<>, plan.table, stream, angles, table, p.T, p.R / 2, p.stride_rotary_t,
         p.stride_rotary_r);
  return table;
}

void launch_fwd(const SequenceAttentionFwd& s, const FwdPlan& plan, DType dtype, cudaStream_t stream) {
  if (plan.kernels == Kernels::None) return;
  dispatch_served(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    plan.kernels == Kernels::Short ? launch_short_fwd<T>(s, plan, stream) : launch_long_fwd<T>(s, plan, stream);
  });
}

void launch_bwd(const SequenceAttentionBwd& s, const BwdPlan& plan, DType dtype, void* scratch, cudaStream_t stream) {
  if (plan.kernels == Kernels::None) return;
  void* const rest = static_cast<char*>(scratch) + plan.rotary.bytes;
  dispatch_served(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    plan.kernels == Kernels::Short ? launch_short_bwd<T>(s, plan, rest, stream) : launch_long_bwd<T>(s, plan, rest, stream);
  });
}

}  // namespace

int64_t temporal_attention_fwd_scratch(const TemporalAttentionFwdParams& p) { return fwd_plan(sizes_of(p)).scratch_bytes; }
int64_t temporal_attention_bwd_scratch(const TemporalAttentionBwdParams& p) { return bwd_plan(sizes_of(p)).scratch_bytes; }
int64_t spatial_attention_fwd_scratch(const SpatialAttentionFwdParams& p) { return fwd_plan(sizes_of(p)).scratch_bytes; }
int64_t spatial_attention_bwd_scratch(const SpatialAttentionBwdParams& p) { return bwd_plan(sizes_of(p)).scratch_bytes; }

void launch_temporal_attention_fwd(const TemporalAttentionFwdParams& p, void* scratch, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const FwdPlan plan = fwd_plan(sizes_of(p));
  const float2* table = launch_rotary_table(p, plan.rotary, scratch, cuda_stream);
  launch_fwd(to_sequences(p, table), plan, p.dtype, cuda_stream);
}

void launch_temporal_attention_bwd(const TemporalAttentionBwdParams& p, void* scratch, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const BwdPlan plan = bwd_plan(sizes_of(p));
  const float2* table = launch_rotary_table(p, plan.rotary, scratch, cuda_stream);
  launch_bwd(to_sequences(p, table), plan, p.dtype, scratch, cuda_stream);
}

void launch_spatial_attention_fwd(const SpatialAttentionFwdParams& p, void*, void* stream) {
  launch_fwd(to_sequences(p), fwd_plan(sizes_of(p)), p.dtype, static_cast<cudaStream_t>(stream));
}

void launch_spatial_attention_bwd(const SpatialAttentionBwdParams& p, void* scratch, void* stream) {
  launch_bwd(to_sequences(p), bwd_plan(sizes_of(p)), p.dtype, scratch, static_cast<cudaStream_t>(stream));
}

}  // namespace vdiff
