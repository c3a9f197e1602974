#include "feedforward/cuda/run.h"

#include "common/cuda/run.h"
#include "feedforward/cuda/sm80/entry.h"

namespace vdiff {
namespace {

void check_served(const char* op, const Tensor& x, const Tensor& weight) {
  check_dtype_of_gpu(op, "x", x);
  STD_TORCH_CHECK(
      max_of(x.size(0), max_of(x.size(1), weight.size(0))) < INT32_MAX / 2, op, ": x has shape ", shape_text(x.sizes()),
      " and weight ", shape_text(weight.sizes()), "; expected less than 2^30 rows and columns on a GPU");
}

// The weight, or a copy whose rows have unit stride, as the params then say. It must live until the launches are made.
template <class Params>
Tensor with_unit_rows(const Tensor& weight, Params& params) {
  const bool has_unit_rows = weight.stride(1) == 1 || weight.size(1) <= 1;
  const Tensor held = has_unit_rows ? weight : torch::stable::contiguous(weight);
  params.weight = held.const_data_ptr();
  params.stride_weight_e = held.stride(0);
  params.stride_weight_c = held.stride(1);
  return held;
}

}  // namespace

void geglu_cuda(const char* op, const Tensor& x, const Tensor& weight, GegluParams params) {
  check_served(op, x, weight);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const Tensor held = with_unit_rows(weight, params);
  launch_geglu_fwd(params, current_cuda_stream(x.get_device_index()));
}

void geglu_cuda(const char* op, const Tensor& x, const Tensor& weight, GegluBackwardParams params) {
  check_served(op, x, weight);
  const Tensor held = with_unit_rows(weight, params);
  run_with_scratch(x, params, geglu_bwd_scratch, launch_geglu_bwd);
}

}  // namespace vdiff
