#include "attention/arguments.h"

namespace vdiff {
namespace {

// At most one of the two, floating, on like's device; their shapes are the caller's.
AttentionBias bias_table(
    const char* op, const char* like_name, const Tensor& like, const OptionalTensor& bias, const OptionalTensor& rel_bias) {
  STD_TORCH_CHECK(!bias || !rel_bias, op, ": bias and rel_bias are both given; expected at most one");
  if (!bias && !rel_bias) return {};
  const Tensor& table = bias ? *bias : *rel_bias;
  check_device(op, bias ? "bias" : "rel_bias", table, like_name, like);
  const int64_t last = table.dim() - 1;
  return {table.const_data_ptr(), dtype_of(table),     !bias,
          table.stride(0),        table.stride(last - 1), table.stride(last)};
}

}  // namespace

void check_acc(const char* op, const char* name, const Tensor& tensor, const char* like_name, const Tensor& like) {
  check_device(op, name, tensor, like_name, like);
  STD_TORCH_CHECK(
      tensor.scalar_type() == acc_scalar_type(like), op, ": ", name, " has dtype ", dtype_text(tensor.scalar_type()), "; expected ",
      dtype_text(acc_scalar_type(like)));
}

void check_mask(
    const char* op, const char* name, const Tensor& mask, const char* layout, std::initializer_list<int64_t> shape,
    const char* like_name, const Tensor& like) {
  check_device(op, name, mask, like_name, like);
  STD_TORCH_CHECK(
      mask.scalar_type() == torch::headeronly::ScalarType::Bool, op, ": ", name, " has dtype ", dtype_text(mask.scalar_type()),
      "; expected bool");
  check_shape(op, name, mask, layout, shape);
}

void fill_temporal_options(
    const char* op, const char* like_name, const Tensor& like, const TemporalArguments& a, TemporalAttentionParams& params) {
  const int64_t B = params.B, T = params.T, S = params.S, N = params.N, D = params.D;
  if (a.bias) check_shape(op, "bias", *a.bias, "(N, T, S)", {N, T, S});
  if (a.rel_bias) check_shape(op, "rel_bias", *a.rel_bias, "(N, T+S-1)", {N, T + S - 1});
  STD_TORCH_CHECK(
      S == T || (!a.focus_present && !a.rotary), op, ": ", a.focus_present ? "focus_present" : "rotary",
      " is given with S = ", S, " and T = ", T, "; expected S == T");
  params.bias = bias_table(op, like_name, like, a.bias, a.rel_bias);
  params.scale = a.scale;
  params.causal = a.causal;
  if (a.focus_present) {
    check_mask(op, "focus_present", *a.focus_present, "(B, T)", {B, T}, like_name, like);
    params.focus_present = static_cast<const bool*>(a.focus_present->const_data_ptr());
    params.stride_focus_b = a.focus_present->stride(0);
    params.stride_focus_t = a.focus_present->stride(1);
  }
  if (a.rotary) {
    check_acc(op, "rotary", *a.rotary, like_name, like);
    check_rank(op, "rotary", *a.rotary, 2);
    params.R = 2 * a.rotary->size(1);
    STD_TORCH_CHECK(params.R <= D, op, ": rotary has R = ", params.R, "; expected at most D = ", D);
    check_shape(op, "rotary", *a.rotary, "(T, R/2)", {T, params.R / 2});
    params.rotary = a.rotary->const_data_ptr();
    params.stride_rotary_t = a.rotary->stride(0);
    params.stride_rotary_r = a.rotary->stride(1);
  }
}

void fill_spatial_options(
    const char* op, const char* like_name, const Tensor& like, const SpatialArguments& a, SpatialAttentionParams& params) {
  const int64_t H = params.H, W = params.W, S = params.KH * params.KW, N = params.N;
  if (a.bias) check_shape(op, "bias", *a.bias, "(N, H*W, S)", {N, H * W, S});
  if (a.rel_bias) check_shape(op, "rel_bias", *a.rel_bias, "(N, 2H-1, 2W-1)", {N, 2 * H - 1, 2 * W - 1});
  params.bias = bias_table(op, like_name, like, a.bias, a.rel_bias);
  params.scale = a.scale;
}

}  // namespace vdiff
