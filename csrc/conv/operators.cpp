#include "conv/operators.h"

#include "conv/cpu_kernels.h"
#include "norm/arguments.h"
#include "norm/operators.h"
#ifdef VDIFF_WITH_CUDA
#include "conv/cuda/run.h"
#endif

namespace vdiff {

namespace {

// Checks x and weight against each other, and returns the sizes.
ConvSizes conv_sizes(const char* op, const Tensor& x, const Tensor& weight) {
  check_image(op, "x", x);
  check_rank(op, "weight", weight, 5);
  check_dtype(op, "weight", weight, "x", x);
  check_device(op, "weight", weight, "x", x);
  const int64_t Ci = x.size(4), Co = weight.size(0);
  const bool temporal = weight.size(2) == 3;
  if (temporal) {
    check_shape(op, "weight", weight, "(Co, Ci, 3, 1, 1)", {Co, Ci, 3, 1, 1});
  } else {
    check_shape(op, "weight", weight, "(Co, Ci, 1, 3, 3)", {Co, Ci, 1, 3, 3});
  }
  return {x.size(0), x.size(1), x.size(2), x.size(3), Ci, Co, temporal};
}

ConvWeight conv_weight(const Tensor& weight, const ConvSizes& sizes) {
  return {
      weight.const_data_ptr(), weight.stride(0), weight.stride(1), weight.stride(sizes.temporal ? 2 : 3), weight.stride(4)};
}

// bias, temb and mix as the kernels read them.
struct EpilogueOperands {
  OptionalTensor bias, temb, mix;
};

EpilogueOperands epilogue_operands(
    const char* op, const Tensor& x, const ConvSizes& s, const OptionalTensor& bias, const OptionalTensor& temb,
    const OptionalTensor& mix) {
  check_vector(op, "bias", bias, x, "(Co,)", {s.Co});
  check_vector(op, "temb", temb, x, "(B, T, Co)", {s.B, s.T, s.Co});
  check_vector(op, "mix", mix, x, "(B, T)", {s.B, s.T});
  STD_TORCH_CHECK(
      !mix.has_value() || mix->scalar_type() == acc_scalar_type(x), op, ": mix must be float64 for float64 x, else float32");
  return {acc_contiguous(bias, x), acc_contiguous(temb, x), acc_contiguous(mix, x)};
}

}  // namespace

std::tuple<Tensor, Tensor> norm_act_conv(
    const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const std::string& norm_kind,
    const OptionalTensor& norm_weight, const OptionalTensor& norm_bias, int64_t norm_groups, double norm_eps,
    const std::string& norm_scope, const OptionalTensor& norm_scale, const OptionalTensor& norm_shift, const std::string& act,
    const OptionalTensor& stats, const OptionalTensor& temb, const OptionalTensor& residual, const OptionalTensor& mix,
    bool return_stats) {
  const char* op = "norm_act_conv_native";
  const ConvSizes s = conv_sizes(op, x, weight);
  const EpilogueOperands epilogue = epilogue_operands(op, x, s, bias, temb, mix);
  if (residual.has_value()) check_image_like(op, "residual", *residual, x, {s.B, s.T, s.H, s.W, s.Co});
  STD_TORCH_CHECK(residual.has_value() || !mix.has_value(), op, ": mix needs a residual");
  const NormOperands norm = norm_operands(
      op, x,
      {norm_kind, norm_weight, norm_bias, norm_groups, norm_eps, norm_scope, norm_scale, norm_shift, act, stats});

  Tensor out = torch::stable::new_empty(x, {s.B, s.T, s.H, s.W, s.Co});
  Tensor out_stats = new_acc(x, return_stats, {s.B, s.T, s.Co, 2});
  NormActConvParams params = {};
  params.x = x.const_data_ptr();
  params.weight = conv_weight(weight, s);
  params.bias = pointer_or_null(epilogue.bias);
  params.temb = pointer_or_null(epilogue.temb);
  params.residual = pointer_or_null(residual);
  params.mix = pointer_or_null(epilogue.mix);
  params.out = out.mutable_data_ptr();
  params.out_stats = wanted_pointer(out_stats, return_stats);
  params.sizes = s;
  params.stride_x = image_strides(x);
  if (residual.has_value()) params.stride_residual = image_strides(*residual);
  params.norm = norm.params;
  params.dtype = dtype_of(x);
#ifdef VDIFF_WITH_CUDA
  if (x.is_cuda()) {
    norm_act_conv_cuda(op, x, params);
    return {out, out_stats};
  }
#endif
  cpu_norm_act_conv(params);
  return {out, out_stats};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> norm_act_conv_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const std::string& norm_kind,
    const OptionalTensor& norm_weight, const OptionalTensor& norm_bias, int64_t norm_groups, double norm_eps,
    const std::string& norm_scope, const OptionalTensor& norm_scale, const OptionalTensor& norm_shift, const std::string& act,
    const OptionalTensor& stats, const OptionalTensor& temb, const OptionalTensor& mix, bool need_x, bool need_weight,
    bool need_mix) {
  const char* op = "norm_act_conv_native_backward";
  const ConvSizes s = conv_sizes(op, x, weight);
  const EpilogueOperands epilogue = epilogue_operands(op, x, s, bias, temb, mix);
  check_image_like(op, "grad_out", grad_out, x, {s.B, s.T, s.H, s.W, s.Co});
  STD_TORCH_CHECK(mix.has_value() || !need_mix, op, ": need_mix without mix");
  const NormOperands norm = norm_operands(
      op, x,
      {norm_kind, norm_weight, norm_bias, norm_groups, norm_eps, norm_scope, norm_scale, norm_shift, act, stats});

  const bool need_norm_weight = need_x && norm_weight.has_value(), need_norm_bias = need_x && norm_bias.has_value();
  const bool need_scale = need_x && norm_scale.has_value(), need_shift = need_x && norm_shift.has_value();
  Tensor dx = need_x ? torch::stable::new_empty(x, x.sizes()) : new_acc(x, false, {});
  Tensor dweight = need_weight ? torch::stable::new_empty(weight, weight.sizes()) : new_acc(x, false, {});
  Tensor dbias = new_acc(x, bias.has_value(), {s.Co});
  Tensor dnorm_weight = new_acc(x, need_norm_weight, {s.Ci});
  Tensor dnorm_bias = new_acc(x, need_norm_bias, {s.Ci});
  Tensor dscale = new_acc(x, need_scale, {s.B, s.Ci});
  Tensor dshift = new_acc(x, need_shift, {s.B, s.Ci});
  Tensor dtemb = new_acc(x, temb.has_value(), {s.B, s.T, s.Co});
  Tensor dmix = new_acc(x, need_mix, {s.B, s.T});

  NormActConvBackwardParams params = {};
  params.grad = grad_out.const_data_ptr();
  params.x = x.const_data_ptr();
  params.weight = conv_weight(weight, s);
  params.bias = pointer_or_null(epilogue.bias);
  params.temb = pointer_or_null(epilogue.temb);
  params.mix = pointer_or_null(epilogue.mix);
  params.need_x = need_x;
  params.dx = wanted_pointer(dx, need_x);
  params.dweight = wanted_pointer(dweight, need_weight);
  params.dbias = wanted_pointer(dbias, bias.has_value());
  params.dnorm_weight = wanted_pointer(dnorm_weight, need_norm_weight);
  params.dnorm_bias = wanted_pointer(dnorm_bias, need_norm_bias);
  params.dscale = wanted_pointer(dscale, need_scale);
  params.dshift = wanted_pointer(dshift, need_shift);
  params.dtemb = wanted_pointer(dtemb, temb.has_value());
  params.dmix = wanted_pointer(dmix, need_mix);
  params.sizes = s;
  params.stride_grad = image_strides(grad_out);
  params.stride_x = image_strides(x);
  params.norm = norm.params;
  params.dtype = dtype_of(x);
#ifdef VDIFF_WITH_CUDA
  if (x.is_cuda()) {
    norm_act_conv_cuda(op, x, params);
    return {dx, dweight, dbias, dnorm_weight, dnorm_bias, dscale, dshift, dtemb, dmix};
  }
#endif
  cpu_norm_act_conv_backward(params);
  return {dx, dweight, dbias, dnorm_weight, dnorm_bias, dscale, dshift, dtemb, dmix};
}

}  // namespace vdiff
