#include "conv/cuda/run.h"

#include "common/cuda/run.h"
#include "conv/cuda/sm80/entry.h"
#include "norm/arguments.h"

namespace vdiff {
namespace {

// What the kernels count in 32 bits, and what the norm's kernels hold.
template <class Params>
void check_served(const char* op, const Tensor& x, const Params& p) {
  constexpr int64_t kMost = int64_t(1) << 30;
  const ConvSizes& s = p.sizes;
  check_dtype_of_gpu(op, "x", x);
  STD_TORCH_CHECK(
      s.B * s.T * s.H * s.W <= kMost, op, ": x has ", s.B * s.T * s.H * s.W, " pixels; expected at most ", kMost, " on a GPU");
  STD_TORCH_CHECK(
      max_of(s.Ci, s.Co) * 9 <= kMost, op, ": the weight has ", s.Co, " channels out and ", s.Ci, " in; expected at most ",
      kMost / 9, " on a GPU");
  check_norm_channels_of_gpu(op, s.Ci, p.norm.kind);
}

}  // namespace

void norm_act_conv_cuda(const char* op, const Tensor& x, const NormActConvParams& params) {
  check_served(op, x, params);
  run_with_scratch(x, params, norm_act_conv_fwd_scratch, launch_norm_act_conv_fwd);
}

void norm_act_conv_cuda(const char* op, const Tensor& x, const NormActConvBackwardParams& params) {
  check_served(op, x, params);
  run_with_scratch(x, params, norm_act_conv_bwd_scratch, launch_norm_act_conv_bwd);
}

}  // namespace vdiff
