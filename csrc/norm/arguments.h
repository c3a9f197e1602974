// The torch side of a norm: from the arguments that NORM of ops/norm/schema.py names to NormParams. Shared with conv.
#pragma once

#include <string>

#include "common/operands.h"
#include "norm/params.h"

namespace vdiff {

// The schema's arguments, by reference, in the schema's order.
struct NormArguments {
  const std::string& kind;
  const OptionalTensor& weight;  // (C,)
  const OptionalTensor& bias;    // (C,)
  int64_t groups;
  double eps;
  const std::string& scope;
  const OptionalTensor& scale;  // (B, C)
  const OptionalTensor& shift;  // (B, C)
  const std::string& act;
  const OptionalTensor& stats;  // (B, T, C, 2)
};

// The kernels' parameters, and the copies of vectors that they point into.
struct NormOperands {
  NormParams params;
  OptionalTensor weight, bias, scale, shift, stats;
};

// x is (B, T, H, W, C), checked. Checks the rest.
NormOperands norm_operands(const char* op, const Tensor& x, const NormArguments& arguments);

// Rank 5, one of the four dtypes, unit innermost stride.
void check_image(const char* op, const char* name, const Tensor& image);
// Of the given layout and shape, x's dtype and device, unit innermost stride.
void check_image_like(
    const char* op, const char* name, const Tensor& image, const Tensor& x, std::initializer_list<int64_t> shape);

// A GPU's block holds a pixel that is normalised by itself: of a layer or rms norm, C is at most kMaxPixelChannels.
void check_norm_channels_of_gpu(const char* op, int64_t C, NormKind kind);

ImageStrides image_strides(const Tensor& image);

// Of x (B, T, H, W, C), into stats (B, T, C, 2).
ChannelStatsParams channel_stats_params(const Tensor& x, const Tensor& stats);

}  // namespace vdiff
