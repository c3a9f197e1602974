// The torch side of the attention layers: check, allocate, fill the params, call the kernel.
#include "attention/layer_operators.h"

#include "attention/arguments.h"
#include "attention/cpu_kernels.h"
#include "norm/arguments.h"

namespace vdiff {
namespace {

// The schemas' arguments that both layers share, by reference.
struct LayerArguments {
  const Tensor& x;
  const Tensor& w_qkv;
  const OptionalTensor& b_qkv;
  const Tensor& w_out;
  const OptionalTensor& b_out;
  int64_t num_heads;
  const std::string& norm_kind;
  const OptionalTensor& norm_weight;
  const OptionalTensor& norm_bias;
  double norm_eps;
  const OptionalTensor& pos_emb;
};

// The kernels' parameters, and the copies of vectors that they point into.
struct LayerOperands {
  LayerParams params;
  NormOperands norm;
  OptionalTensor b_qkv, b_out, pos_emb;
};

LinearWeight linear_weight(const char* op, const char* name, const Tensor& weight, const Tensor& x) {
  check_rank(op, name, weight, 2);
  check_dtype(op, name, weight, "x", x);
  check_device(op, name, weight, "x", x);
  return {weight.const_data_ptr(), weight.stride(0), weight.stride(1)};
}

// Fills in the sizes of the attention as well.
template <class Attention>
LayerOperands layer_operands(const char* op, const LayerArguments& a, Attention& attention) {
  const Tensor& x = a.x;
  check_image(op, "x", x);
  const int64_t B = x.size(0), T = x.size(1), H = x.size(2), W = x.size(3), C = x.size(4), N = a.num_heads;
  LayerOperands operands{};
  LayerParams& params = operands.params;
  params.w_qkv = linear_weight(op, "w_qkv", a.w_qkv, x);
  params.w_out = linear_weight(op, "w_out", a.w_out, x);
  STD_TORCH_CHECK(
      N >= 1 && a.w_qkv.size(0) % (3 * N) == 0, op, ": w_qkv has shape ", shape_text(a.w_qkv.sizes()), " and num_heads is ", N,
      "; expected (3*N*D, C)");
  const int64_t D = a.w_qkv.size(0) / (3 * N), Co = a.w_out.size(0);
  STD_TORCH_CHECK(1 <= D && D <= kMaxHeadDim, op, ": w_qkv has D = ", D, "; expected 1 to ", kMaxHeadDim);
  check_shape(op, "w_qkv", a.w_qkv, "(3*N*D, C)", {3 * N * D, C});
  check_shape(op, "w_out", a.w_out, "(Co, N*D)", {Co, N * D});
  check_vector(op, "b_qkv", a.b_qkv, x, "(3*N*D,)", {3 * N * D});
  check_vector(op, "b_out", a.b_out, x, "(Co,)", {Co});
  check_vector(op, "pos_emb", a.pos_emb, x, "(T, C)", {T, C});
  STD_TORCH_CHECK(
      a.norm_kind != "group", op, ": norm_kind is \"group\"; expected none, layer or rms (a group norm goes before the layer)");
  operands.norm = norm_operands(op, x, {a.norm_kind, a.norm_weight, a.norm_bias, 0, a.norm_eps, "frame", {}, {}, "none", {}});
  operands.b_qkv = acc_contiguous(a.b_qkv, x);
  operands.b_out = acc_contiguous(a.b_out, x);
  operands.pos_emb = acc_contiguous(a.pos_emb, x);

  params.x = x.const_data_ptr();
  params.b_qkv = pointer_or_null(operands.b_qkv);
  params.b_out = pointer_or_null(operands.b_out);
  params.pos_emb = pointer_or_null(operands.pos_emb);
  params.norm = operands.norm.params;
  params.C = C, params.Co = Co;
  params.stride_x = image_strides(x);
  attention.B = B, attention.T = T, attention.H = H, attention.W = W, attention.N = N, attention.D = D;
  attention.dtype = dtype_of(x);
  return operands;
}

void fill_options(const char* op, const Tensor& x, const TemporalArguments& arguments, TemporalAttentionParams& params) {
  params.S = params.T;
  fill_temporal_options(op, "x", x, arguments, params);
}

void fill_options(const char* op, const Tensor& x, const SpatialArguments& arguments, SpatialAttentionParams& params) {
  params.KH = params.H, params.KW = params.W;
  fill_spatial_options(op, "x", x, arguments, params);
}

template <class Attention, class Options>
Tensor forward(
    const char* op, const LayerArguments& a, const OptionalTensor& residual, const Options& options,
    void (*on_cpu)(const LayerFwdParams<Attention>&)) {
  LayerFwdParams<Attention> params{};
  const LayerOperands operands = layer_operands(op, a, params.attention);
  params.layer = operands.params;
  fill_options(op, a.x, options, params.attention);
  const int64_t sizes[5] = {a.x.size(0), a.x.size(1), a.x.size(2), a.x.size(3), a.w_out.size(0)};
  if (residual) {
    check_image_like(op, "residual", *residual, a.x, {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]});
    params.residual = residual->const_data_ptr();
    params.stride_residual = image_strides(*residual);
  }
  const Tensor out = torch::stable::new_empty(a.x, torch::headeronly::IntHeaderOnlyArrayRef(sizes, 5));
  params.out = out.mutable_data_ptr();
  on_cpu(params);
  return out;
}

template <class Attention, class Options>
LayerGradients backward(
    const char* op, const Tensor& grad_out, const LayerArguments& a, const Options& options, bool residual_is_x, bool need_bias_grad,
    void (*on_cpu)(const LayerBwdParams<Attention>&)) {
  LayerBwdParams<Attention> params{};
  const LayerOperands operands = layer_operands(op, a, params.attention);
  params.layer = operands.params;
  fill_options(op, a.x, options, params.attention);
  const Tensor& x = a.x;
  const int64_t T = x.size(1), C = x.size(4), Co = a.w_out.size(0), inner = a.w_out.size(1);
  check_image_like(op, "grad_out", grad_out, x, {x.size(0), T, x.size(2), x.size(3), Co});
  params.grad_out = grad_out.const_data_ptr();
  params.stride_grad = image_strides(grad_out);
  STD_TORCH_CHECK(!residual_is_x || Co == C, op, ": residual_is_x with Co = ", Co, "; expected C = ", C);
  params.residual_is_x = residual_is_x;

  const Tensor dx = torch::stable::new_empty(x, x.sizes());
  const Tensor dw_qkv = new_acc(x, true, {3 * inner, C}), dw_out = new_acc(x, true, {Co, inner});
  params.dx = dx.mutable_data_ptr();
  params.dw_qkv = dw_qkv.mutable_data_ptr();
  params.dw_out = dw_out.mutable_data_ptr();
  const auto wanted = [&](bool is_wanted, std::initializer_list<int64_t> sizes, void*& pointer) {
    const Tensor gradient = new_acc(x, is_wanted, sizes);
    pointer = wanted_pointer(gradient, is_wanted);
    return gradient;
  };
  const Tensor db_qkv = wanted(a.b_qkv.has_value(), {3 * inner}, params.db_qkv);
  const Tensor db_out = wanted(a.b_out.has_value(), {Co}, params.db_out);
  const Tensor dnorm_weight = wanted(a.norm_weight.has_value(), {C}, params.dnorm_weight);
  const Tensor dnorm_bias = wanted(a.norm_bias.has_value(), {C}, params.dnorm_bias);
  const Tensor dpos_emb = wanted(a.pos_emb.has_value(), {T, C}, params.dpos_emb);
  const OptionalTensor& table = options.bias ? options.bias : options.rel_bias;
  const bool has_dbias = need_bias_grad && table;
  const Tensor dbias = has_dbias ? torch::stable::new_empty(x, table->sizes(), acc_scalar_type(x)) : new_acc(x, false, {});
  params.dbias = wanted_pointer(dbias, has_dbias);
  on_cpu(params);
  return {dx, dw_qkv, db_qkv, dw_out, db_out, dnorm_weight, dnorm_bias, dpos_emb, dbias};
}

}  // namespace

Tensor temporal_layer(
    const Tensor& x, const Tensor& w_qkv, const OptionalTensor& b_qkv, const Tensor& w_out, const OptionalTensor& b_out,
    int64_t num_heads, const std::string& norm_kind, const OptionalTensor& norm_weight, const OptionalTensor& norm_bias,
    double norm_eps, const OptionalTensor& pos_emb, const OptionalTensor& residual, const OptionalTensor& bias,
    const OptionalTensor& rel_bias, double scale, bool causal, const OptionalTensor& focus_present, const OptionalTensor& rotary) {
  return forward<TemporalAttentionParams>(
      "temporal_layer_native",
      {x, w_qkv, b_qkv, w_out, b_out, num_heads, norm_kind, norm_weight, norm_bias, norm_eps, pos_emb}, residual,
      TemporalArguments{bias, rel_bias, scale, causal, focus_present, rotary}, cpu_temporal_layer);
}

LayerGradients temporal_layer_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& w_qkv, const OptionalTensor& b_qkv, const Tensor& w_out,
    const OptionalTensor& b_out, int64_t num_heads, const std::string& norm_kind, const OptionalTensor& norm_weight,
    const OptionalTensor& norm_bias, double norm_eps, const OptionalTensor& pos_emb, const OptionalTensor& bias,
    const OptionalTensor& rel_bias, double scale, bool causal, const OptionalTensor& focus_present, const OptionalTensor& rotary,
    bool residual_is_x, bool need_bias_grad) {
  return backward<TemporalAttentionParams>(
      "temporal_layer_native_backward", grad_out,
      {x, w_qkv, b_qkv, w_out, b_out, num_heads, norm_kind, norm_weight, norm_bias, norm_eps, pos_emb},
      TemporalArguments{bias, rel_bias, scale, causal, focus_present, rotary}, residual_is_x, need_bias_grad, cpu_temporal_layer_backward);
}

Tensor spatial_layer(
    const Tensor& x, const Tensor& w_qkv, const OptionalTensor& b_qkv, const Tensor& w_out, const OptionalTensor& b_out,
    int64_t num_heads, const std::string& norm_kind, const OptionalTensor& norm_weight, const OptionalTensor& norm_bias,
    double norm_eps, const OptionalTensor& pos_emb, const OptionalTensor& residual, const OptionalTensor& bias,
    const OptionalTensor& rel_bias, double scale) {
  return forward<SpatialAttentionParams>(
      "spatial_layer_native",
      {x, w_qkv, b_qkv, w_out, b_out, num_heads, norm_kind, norm_weight, norm_bias, norm_eps, pos_emb}, residual,
      SpatialArguments{bias, rel_bias, scale}, cpu_spatial_layer);
}

LayerGradients spatial_layer_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& w_qkv, const OptionalTensor& b_qkv, const Tensor& w_out,
    const OptionalTensor& b_out, int64_t num_heads, const std::string& norm_kind, const OptionalTensor& norm_weight,
    const OptionalTensor& norm_bias, double norm_eps, const OptionalTensor& pos_emb, const OptionalTensor& bias,
    const OptionalTensor& rel_bias, double scale, bool residual_is_x, bool need_bias_grad) {
  return backward<SpatialAttentionParams>(
      "spatial_layer_native_backward", grad_out,
      {x, w_qkv, b_qkv, w_out, b_out, num_heads, norm_kind, norm_weight, norm_bias, norm_eps, pos_emb},
      SpatialArguments{bias, rel_bias, scale}, residual_is_x, need_bias_grad, cpu_spatial_layer_backward);
}

}  // namespace vdiff
