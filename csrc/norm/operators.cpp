#include "norm/operators.h"

#include "norm/arguments.h"
#include "norm/cpu_kernels.h"
#ifdef VDIFF_WITH_CUDA
#include "norm/cuda/run.h"
#endif

namespace vdiff {

Tensor channel_stats(const Tensor& x) {
  check_image("channel_stats_native", "x", x);
  Tensor stats = new_acc(x, true, {x.size(0), x.size(1), x.size(4), 2});
  const ChannelStatsParams params = channel_stats_params(x, stats);
#ifdef VDIFF_WITH_CUDA
  if (x.is_cuda()) {
    channel_stats_cuda("channel_stats_native", x, params);
    return stats;
  }
#endif
  cpu_channel_stats(params);
  return stats;
}

Tensor norm_act(
    const Tensor& x, const std::string& norm_kind, const OptionalTensor& norm_weight, const OptionalTensor& norm_bias,
    int64_t norm_groups, double norm_eps, const std::string& norm_scope, const OptionalTensor& norm_scale,
    const OptionalTensor& norm_shift, const std::string& act, const OptionalTensor& stats, const OptionalTensor& residual) {
  const char* op = "norm_act_native";
  check_image(op, "x", x);
  const int64_t B = x.size(0), T = x.size(1), H = x.size(2), W = x.size(3), C = x.size(4);
  if (residual.has_value()) check_image_like(op, "residual", *residual, x, {B, T, H, W, C});
  const NormOperands norm = norm_operands(
      op, x,
      {norm_kind, norm_weight, norm_bias, norm_groups, norm_eps, norm_scope, norm_scale, norm_shift, act, stats});

  Tensor out = torch::stable::new_empty(x, x.sizes());
  NormActParams params = {};
  params.x = x.const_data_ptr();
  params.residual = pointer_or_null(residual);
  params.out = out.mutable_data_ptr();
  params.B = B, params.T = T, params.H = H, params.W = W, params.C = C;
  params.stride_x = image_strides(x);
  if (residual.has_value()) params.stride_residual = image_strides(*residual);
  params.norm = norm.params;
  params.dtype = dtype_of(x);
#ifdef VDIFF_WITH_CUDA
  if (x.is_cuda()) {
    norm_act_cuda(op, x, params);
    return out;
  }
#endif
  cpu_norm_act(params);
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> norm_act_backward(
    const Tensor& grad_out, const Tensor& x, const std::string& norm_kind, const OptionalTensor& norm_weight,
    const OptionalTensor& norm_bias, int64_t norm_groups, double norm_eps, const std::string& norm_scope,
    const OptionalTensor& norm_scale, const OptionalTensor& norm_shift, const std::string& act, const OptionalTensor& stats) {
  const char* op = "norm_act_native_backward";
  check_image(op, "x", x);
  const int64_t B = x.size(0), T = x.size(1), H = x.size(2), W = x.size(3), C = x.size(4);
  check_image_like(op, "grad_out", grad_out, x, {B, T, H, W, C});
  const NormOperands norm = norm_operands(
      op, x,
      {norm_kind, norm_weight, norm_bias, norm_groups, norm_eps, norm_scope, norm_scale, norm_shift, act, stats});

  Tensor dx = torch::stable::new_empty(x, x.sizes());
  Tensor dweight = new_acc(x, norm_weight.has_value(), {C});
  Tensor dbias = new_acc(x, norm_bias.has_value(), {C});
  Tensor dscale = new_acc(x, norm_scale.has_value(), {B, C});
  Tensor dshift = new_acc(x, norm_shift.has_value(), {B, C});
  NormActBackwardParams params = {};
  params.grad = grad_out.const_data_ptr();
  params.x = x.const_data_ptr();
  params.dx = dx.mutable_data_ptr();
  params.dweight = wanted_pointer(dweight, norm_weight.has_value());
  params.dbias = wanted_pointer(dbias, norm_bias.has_value());
  params.dscale = wanted_pointer(dscale, norm_scale.has_value());
  params.dshift = wanted_pointer(dshift, norm_shift.has_value());
  params.B = B, params.T = T, params.H = H, params.W = W, params.C = C;
  params.stride_grad = image_strides(grad_out);
  params.stride_x = image_strides(x);
  params.norm = norm.params;
  params.dtype = dtype_of(x);
#ifdef VDIFF_WITH_CUDA
  if (x.is_cuda()) {
    norm_act_cuda(op, x, params);
    return {dx, dweight, dbias, dscale, dshift};
  }
#endif
  cpu_norm_act_backward(params);
  return {dx, dweight, dbias, dscale, dshift};
}

}  // namespace vdiff
