#ifdef VDIFF_WITH_CUDA
#include "linear/operators.h"

#include "common/operands.h"
#include "linear/cuda/run.h"
#include "norm/arguments.h"

namespace vdiff {
namespace {

struct Vectors {
  OptionalTensor bias, pos_emb, gate;
};

Vectors checked_operands(
    const char* op, const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const OptionalTensor& pos_emb,
    const OptionalTensor& gate, const std::string& act) {
  check_image(op, "x", x);
  check_rank(op, "weight", weight, 2);
  const int64_t B = x.size(0), T = x.size(1), C = x.size(4), Co = weight.size(0);
  check_shape(op, "weight", weight, "(Co, C)", {Co, C});
  check_dtype(op, "weight", weight, "x", x);
  check_device(op, "weight", weight, "x", x);
  check_unit_stride(op, "weight", weight);
  check_vector(op, "bias", bias, x, "(Co,)", {Co});
  check_vector(op, "pos_emb", pos_emb, x, "(T, C)", {T, C});
  check_vector(op, "gate", gate, x, "(B, Co)", {B, Co});
  STD_TORCH_CHECK(act == "none", op, ": act is \"", act, "\"; expected none");
  return {acc_contiguous(bias, x), acc_contiguous(pos_emb, x), acc_contiguous(gate, x)};
}

// What forward and backward take alike. The vectors and the norm's must live until the launches are made.
template <class Params>
Params params_of(const Tensor& x, const Tensor& weight, const Vectors& vectors, const NormParams& norm) {
  Params params = {};
  params.weight = weight.const_data_ptr();
  params.bias = pointer_or_null(vectors.bias);
  params.pos_emb = pointer_or_null(vectors.pos_emb);
  params.gate = pointer_or_null(vectors.gate);
  params.B = x.size(0), params.T = x.size(1), params.H = x.size(2), params.W = x.size(3), params.C = x.size(4);
  params.Co = weight.size(0);
  params.stride_weight = weight.stride(0);
  params.norm = norm;
  params.dtype = dtype_of(x);
  return params;
}

}  // namespace

Tensor norm_linear(
    const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const std::string& norm_kind,
    const OptionalTensor& norm_weight, const OptionalTensor& norm_bias, int64_t norm_groups, double norm_eps,
    const std::string& norm_scope, const OptionalTensor& norm_scale, const OptionalTensor& norm_shift, const std::string& act,
    const OptionalTensor& stats, const OptionalTensor& pos_emb, const OptionalTensor& gate, const OptionalTensor& residual) {
  const char* op = "norm_linear_native";
  const Vectors vectors = checked_operands(op, x, weight, bias, pos_emb, gate, act);
  const int64_t B = x.size(0), T = x.size(1), H = x.size(2), W = x.size(3), Co = weight.size(0);
  if (residual.has_value()) check_image_like(op, "residual", *residual, x, {B, T, H, W, Co});
  const NormOperands norm = norm_operands(
      op, x,
      {norm_kind, norm_weight, norm_bias, norm_groups, norm_eps, norm_scope, norm_scale, norm_shift, act, stats});
  Tensor out = torch::stable::new_empty(x, {B, T, H, W, Co});
  auto params = params_of<NormLinearParams>(x, weight, vectors, norm.params);
  params.out = out.mutable_data_ptr();
  norm_linear_cuda(op, x, residual, params);
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> norm_linear_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const std::string& norm_kind,
    const OptionalTensor& norm_weight, const OptionalTensor& norm_bias, int64_t norm_groups, double norm_eps,
    const std::string& norm_scope, const OptionalTensor& norm_scale, const OptionalTensor& norm_shift, const std::string& act,
    const OptionalTensor& stats, const OptionalTensor& pos_emb, const OptionalTensor& gate, bool need_x, bool need_weight) {
  const char* op = "norm_linear_native_backward";
  const Vectors vectors = checked_operands(op, x, weight, bias, pos_emb, gate, act);
  const int64_t B = x.size(0), T = x.size(1), H = x.size(2), W = x.size(3), C = x.size(4), Co = weight.size(0);
  check_image_like(op, "grad_out", grad_out, x, {B, T, H, W, Co});
  const NormOperands norm = norm_operands(
      op, x,
      {norm_kind, norm_weight, norm_bias, norm_groups, norm_eps, norm_scope, norm_scale, norm_shift, act, stats});

  auto params = params_of<NormLinearBackwardParams>(x, weight, vectors, norm.params);
  const auto sums = [&](bool wanted, std::initializer_list<int64_t> sizes, void*& pointer) {
    Tensor made = new_acc(x, wanted, sizes);
    pointer = wanted_pointer(made, wanted);
    return made;
  };
  const auto like = [&](bool wanted, const Tensor& tensor, void*& pointer) {
    if (!wanted) return new_acc(x, false, {});
    Tensor made = torch::stable::new_empty(tensor, tensor.sizes());
    pointer = made.mutable_data_ptr();
    return made;
  };
  Tensor dx = like(need_x, x, params.dx);
  Tensor dweight = like(need_weight, weight, params.dweight);
  Tensor dbias = sums(bias.has_value(), {Co}, params.dbias);
  Tensor dgate = sums(gate.has_value(), {B, Co}, params.dgate);
  Tensor dpos_emb = sums(need_x && pos_emb.has_value(), {T, C}, params.dpos_emb);
  Tensor dnorm_weight = sums(need_x && norm_weight.has_value(), {C}, params.dnorm_weight);
  Tensor dnorm_bias = sums(need_x && norm_bias.has_value(), {C}, params.dnorm_bias);
  Tensor dscale = sums(need_x && norm_scale.has_value(), {B, C}, params.dscale);
  Tensor dshift = sums(need_x && norm_shift.has_value(), {B, C}, params.dshift);
  norm_linear_cuda(op, x, grad_out, params);
  return {dx, dweight, dbias, dgate, dpos_emb, dnorm_weight, dnorm_bias, dscale, dshift};
}

}  // namespace vdiff
#endif
