#include "norm/cuda/run.h"

#include "common/cuda/run.h"
#include "norm/arguments.h"
#include "norm/cuda/plan.h"
#include "norm/cuda_kernels.h"

namespace vdiff {
namespace {

// What the kernels count in 32 bits.
template <class Params>
void check_counts(const char* op, const Params& p) {
  constexpr int64_t kMost = int64_t(1) << 30;
  STD_TORCH_CHECK(p.B * p.T <= kMost, op, ": x has ", p.B * p.T, " frames; expected at most ", kMost, " on a GPU");
  STD_TORCH_CHECK(p.H * p.W <= kMost, op, ": x has ", p.H * p.W, " pixels a frame; expected at most ", kMost, " on a GPU");
  STD_TORCH_CHECK(p.C <= kMost, op, ": x has C = ", p.C, "; expected at most ", kMost, " on a GPU");
}

template <class Params>
void run(
    const char* op, const Tensor& x, const Params& params, int64_t (*scratch_bytes)(const Params&),
    void (*launch)(const Params&, void*, void*)) {
  check_counts(op, params);
  check_dtype_of_gpu(op, "x", x);
  check_norm_channels_of_gpu(op, params.C, params.norm.kind);
  run_with_scratch(x, params, scratch_bytes, launch);
}

}  // namespace

void channel_stats_cuda(const char* op, const Tensor& x, const ChannelStatsParams& params) {
  check_counts(op, params);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const int64_t chunks = channel_stats_chunks(params);
  const Tensor partials = new_acc(x, chunks > 1, {params.B * params.T, chunks, params.C, 2});
  launch_channel_stats(params, partials.mutable_data_ptr(), current_cuda_stream(x.get_device_index()));
}

void norm_act_cuda(const char* op, const Tensor& x, const NormActParams& params) {
  run(op, x, params, norm_act_fwd_scratch, launch_norm_act_fwd);
}

void norm_act_cuda(const char* op, const Tensor& x, const NormActBackwardParams& params) {
  run(op, x, params, norm_act_bwd_scratch, launch_norm_act_bwd);
}

}  // namespace vdiff
