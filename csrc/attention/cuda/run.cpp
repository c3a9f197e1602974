#include "attention/cuda/run.h"

#include <torch/csrc/stable/accelerator.h>

#include "attention/cuda/sm80/entry.h"
#include "common/cuda/stream.h"

namespace vdiff {
namespace {

template <class Params>
void run(
    const char* op, const Tensor& q, const Params& params, int64_t (*scratch_bytes)(const Params&),
    void (*launch)(const Params&, void*, void*)) {
  const torch::stable::accelerator::DeviceGuard guard(q.get_device_index());
  const int64_t floats[1] = {ceil_div(scratch_bytes(params), int64_t(sizeof(float)))};
  const Tensor scratch = torch::stable::new_empty(
      q, torch::headeronly::IntHeaderOnlyArrayRef(floats, 1), torch::headeronly::ScalarType::Float);
  launch(params, scratch.mutable_data_ptr(), current_cuda_stream(q.get_device_index()));
}

template <class Params>
void check_saved(const char* op, const Params& params, int64_t L, int64_t S, bool sums_over_frames) {
  if (is_short_attention(L, S, params.D, params.dtype) && !sums_over_frames) return;
  STD_TORCH_CHECK(
      params.lse != nullptr && params.out.data != nullptr, op, ": ", params.lse == nullptr ? "lse" : "out",
      " is absent; expected forward's, for ", L, " queries and ", S, " keys on a GPU");
}

}  // namespace

void attention_cuda(const char* op, const Tensor& q, const TemporalAttentionFwdParams& params) {
  run(op, q, params, temporal_attention_fwd_scratch, launch_temporal_attention_fwd);
}

void attention_cuda(const char* op, const Tensor& q, const TemporalAttentionBwdParams& params) {
  if (q.numel() > 0) check_saved(op, params, params.T, params.S, false);
  run(op, q, params, temporal_attention_bwd_scratch, launch_temporal_attention_bwd);
}

void attention_cuda(const char* op, const Tensor& q, const SpatialAttentionFwdParams& params) {
  run(op, q, params, spatial_attention_fwd_scratch, launch_spatial_attention_fwd);
}

void attention_cuda(const char* op, const Tensor& q, const SpatialAttentionBwdParams& params) {
  if (q.numel() > 0) check_saved(op, params, params.H * params.W, params.KH * params.KW, params.shared_context);
  run(op, q, params, spatial_attention_bwd_scratch, launch_spatial_attention_bwd);
}

}  // namespace vdiff
