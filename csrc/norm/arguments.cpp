#include "norm/arguments.h"

#include "norm/cuda_kernels.h"
#include "norm/operators.h"

namespace vdiff {

void check_image(const char* op, const char* name, const Tensor& image) {
  check_rank(op, name, image, 5);
  dtype_of(image);
  check_unit_stride(op, name, image);
}

void check_image_like(
    const char* op, const char* name, const Tensor& image, const Tensor& x, std::initializer_list<int64_t> shape) {
  check_shape(op, name, image, "(B, T, H, W, C)", shape);
  check_dtype(op, name, image, "x", x);
  check_device(op, name, image, "x", x);
  check_unit_stride(op, name, image);
}

void check_norm_channels_of_gpu(const char* op, int64_t C, NormKind kind) {
  STD_TORCH_CHECK(
      !is_by_pixel(kind) || C <= kMaxPixelChannels, op, ": x has C = ", C, "; expected at most ", kMaxPixelChannels,
      " of a layer or rms norm on a GPU");
}

ImageStrides image_strides(const Tensor& image) {
  return {image.stride(0), image.stride(1), image.stride(2), image.stride(3)};
}

ChannelStatsParams channel_stats_params(const Tensor& x, const Tensor& stats) {
  return {x.const_data_ptr(), stats.mutable_data_ptr(), x.size(0), x.size(1), x.size(2), x.size(3), x.size(4),
          image_strides(x),   dtype_of(x)};
}

static NormKind norm_kind(const char* op, const std::string& kind) {
  if (kind == "none") return NormKind::None;
  if (kind == "group") return NormKind::Group;
  if (kind == "layer") return NormKind::Layer;
  STD_TORCH_CHECK(kind == "rms", op, ": norm_kind is \"", kind, "\"; expected none, group, layer or rms");
  return NormKind::Rms;
}

NormOperands norm_operands(const char* op, const Tensor& x, const NormArguments& a) {
  const int64_t B = x.size(0), T = x.size(1), C = x.size(4);
  const NormKind kind = norm_kind(op, a.kind);
  STD_TORCH_CHECK(a.act == "none" || a.act == "silu", op, ": act is \"", a.act, "\"; expected none or silu");
  STD_TORCH_CHECK(
      a.scope == "frame" || a.scope == "clip", op, ": norm_scope is \"", a.scope, "\"; expected frame or clip");
  check_vector(op, "norm_weight", a.weight, x, "(C,)", {C});
  check_vector(op, "norm_bias", a.bias, x, "(C,)", {C});
  check_vector(op, "norm_scale", a.scale, x, "(B, C)", {B, C});
  check_vector(op, "norm_shift", a.shift, x, "(B, C)", {B, C});
  const bool any = a.weight.has_value() || a.bias.has_value() || a.scale.has_value() || a.shift.has_value();
  STD_TORCH_CHECK(kind != NormKind::None || !any, op, ": norm_kind \"none\" takes no weight, bias, scale or shift");
  STD_TORCH_CHECK(
      kind == NormKind::Group || !a.stats.has_value(), op, ": stats are given; expected with norm_kind \"group\" alone");
  if (kind == NormKind::Group) {
    STD_TORCH_CHECK(
        a.groups >= 1 && C % a.groups == 0, op, ": norm_groups is ", a.groups, "; expected a divisor of C = ", C);
    check_vector(op, "stats", a.stats, x, "(B, T, C, 2)", {B, T, C, 2});
    STD_TORCH_CHECK(
        !a.stats.has_value() || a.stats->scalar_type() == acc_scalar_type(x), op,
        ": stats must be float64 for float64 x, else float32");
  }

  NormOperands operands;
  operands.weight = acc_contiguous(a.weight, x);
  operands.bias = acc_contiguous(a.bias, x);
  operands.scale = acc_contiguous(a.scale, x);
  operands.shift = acc_contiguous(a.shift, x);
  operands.stats = kind == NormKind::Group && !a.stats ? OptionalTensor(channel_stats(x)) : acc_contiguous(a.stats, x);
  operands.params = {
      kind,
      a.scope == "clip",
      a.act == "silu",
      a.groups,
      a.eps,
      pointer_or_null(operands.weight),
      pointer_or_null(operands.bias),
      pointer_or_null(operands.scale),
      pointer_or_null(operands.shift),
      pointer_or_null(operands.stats)};
  return operands;
}

}  // namespace vdiff
