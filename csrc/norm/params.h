// What the norm kernels take: raw pointers, sizes, strides in elements. An interface of this family: convolutions and attention
// layers have a norm in front of them. acc: double where x is double, else float.
#pragma once

#include <cstdint>

#include "common/image_strides.h"
#include "common/scalar.h"

namespace vdiff {

struct ChannelStatsParams {
  const void* x;  // (B, T, H, W, C) of dtype, unit stride over C
  void* stats;    // (B, T, C, 2) acc, contiguous: mean, biased variance over H and W
  int64_t B, T, H, W, C;
  ImageStrides stride_x;
  DType dtype;
};

enum class NormKind { None, Group, Layer, Rms };

// Whether each pixel is normalised by itself.
inline bool is_by_pixel(NormKind kind) { return kind == NormKind::Layer || kind == NormKind::Rms; }

// h = act(norm(x)), as kernels take it. Vectors are contiguous acc; null where absent.
struct NormParams {
  NormKind kind;
  bool clip;  // group statistics over the clip, not the frame
  bool silu;
  int64_t groups;
  double eps;
  const void* weight;  // (C,)
  const void* bias;    // (C,)
  const void* scale;   // (B, C)
  const void* shift;   // (B, C)
  const void* stats;   // (B, T, C, 2), given iff kind is Group
};

struct NormActParams {
  const void* x;         // (B, T, H, W, C) of dtype
  const void* residual;  // like x, or null
  void* out;             // like x, contiguous
  int64_t B, T, H, W, C;
  ImageStrides stride_x, stride_residual;
  NormParams norm;
  DType dtype;
};

struct NormActBackwardParams {
  const void* grad;  // (B, T, H, W, C) gradient of act(norm(x)), of dtype, or acc where grad_is_acc
  const void* x;     // (B, T, H, W, C) of dtype
  void* dx;          // like x, contiguous
  void* dweight;     // (C,) acc; null where not wanted, like the next three
  void* dbias;       // (C,) acc
  void* dscale;      // (B, C) acc
  void* dshift;      // (B, C) acc
  int64_t B, T, H, W, C;
  ImageStrides stride_grad, stride_x;
  NormParams norm;
  DType dtype;
  bool grad_is_acc;
};

}  // namespace vdiff
