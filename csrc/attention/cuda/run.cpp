#include "attention/cuda/run.h"

#include "attention/cuda/plan.h"
#include "attention/cuda/sm80/entry.h"
#include "common/cuda/run.h"

namespace vdiff {
namespace {

template <class Params>
void check_saved(const char* op, const Tensor& q, const Params& params) {
  const attention::Sizes sizes = attention::sizes_of(params);
  if (q.numel() == 0 || !attention::bwd_needs_out_and_lse(sizes)) return;
  STD_TORCH_CHECK(
      params.lse != nullptr && params.out.data != nullptr, op, ": ", params.lse == nullptr ? "lse" : "out",
      " is absent; expected forward's, for ", sizes.L, " queries and ", sizes.S, " keys on a GPU");
}

}  // namespace

void attention_cuda(const char*, const Tensor& q, const TemporalAttentionFwdParams& params) {
  run_with_scratch(q, params, temporal_attention_fwd_scratch, launch_temporal_attention_fwd);
}

void attention_cuda(const char* op, const Tensor& q, const TemporalAttentionBwdParams& params) {
  check_saved(op, q, params);
  run_with_scratch(q, params, temporal_attention_bwd_scratch, launch_temporal_attention_bwd);
}

void attention_cuda(const char*, const Tensor& q, const SpatialAttentionFwdParams& params) {
  run_with_scratch(q, params, spatial_attention_fwd_scratch, launch_spatial_attention_fwd);
}

void attention_cuda(const char* op, const Tensor& q, const SpatialAttentionBwdParams& params) {
  check_saved(op, q, params);
  run_with_scratch(q, params, spatial_attention_bwd_scratch, launch_spatial_attention_bwd);
}

}  // namespace vdiff
