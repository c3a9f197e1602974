#include "linear/cuda/run.h"

#include "common/cuda/run.h"
#include "linear/cuda/sm80/entry.h"
#include "norm/arguments.h"

namespace vdiff {
namespace {

template <class Params>
void check_served(const char* op, const Tensor& x, const Params& p) {
  check_dtype_of_gpu(op, "x", x);
  STD_TORCH_CHECK(
      max_of(p.M(), max_of(p.C, p.Co)) < INT32_MAX / 2, op, ": x has shape ", shape_text(x.sizes()), " and weight ", p.Co,
      " rows; expected less than 2^30 pixels and channels on a GPU");
  check_norm_channels_of_gpu(op, p.C, p.norm.kind);
}

// An image, or a copy, whose pixels lie at even steps: a matrix.
struct Rows {
  Tensor held;
  int64_t stride;
};

Rows rows_of(const Tensor& image) {
  int64_t stride = 0, pixels = 1;  // a step from one pixel to the next, once there is a next
  bool even = true;
  for (int64_t i = 3; i >= 0; --i) {
    if (image.size(i) == 1) continue;
    if (pixels == 1) stride = image.stride(i);
    even = even && image.stride(i) == pixels * stride;
    pixels *= image.size(i);
  }
  return even ? Rows{image, stride} : Rows{torch::stable::contiguous(image), image.size(4)};
}

}  // namespace

void norm_linear_cuda(const char* op, const Tensor& x, const OptionalTensor& residual, NormLinearParams params) {
  check_served(op, x, params);
  const Rows rows = rows_of(x), added = residual.has_value() ? rows_of(*residual) : Rows{x, 0};
  params.x = rows.held.const_data_ptr();
  params.stride_x = rows.stride;
  params.residual = residual.has_value() ? added.held.const_data_ptr() : nullptr;
  params.stride_residual = added.stride;
  run_with_scratch(x, params, norm_linear_fwd_scratch, launch_norm_linear_fwd);
}

void norm_linear_cuda(const char* op, const Tensor& x, const Tensor& grad_out, NormLinearBackwardParams params) {
  check_served(op, x, params);
  const Rows rows = rows_of(x), incoming = rows_of(grad_out);
  params.x = rows.held.const_data_ptr();
  params.stride_x = rows.stride;
  params.grad = incoming.held.const_data_ptr();
  params.stride_grad = incoming.stride;
  run_with_scratch(x, params, norm_linear_bwd_scratch, launch_norm_linear_bwd);
}

}  // namespace vdiff
