// What the convolution kernels take: raw pointers, sizes, strides in elements.
// acc: double where x is double, else float. Vectors in acc are contiguous.
#pragma once

#include <cstdint>

#include "norm/params.h"

namespace vdiff {

// weight (Co, Ci, 1, 3, 3) or (Co, Ci, 3, 1, 1): three taps along one dimension (H or T), and kColumns taps along W.
struct ConvWeight {
  const void* data;  // of dtype
  int64_t stride_co, stride_ci;
  int64_t stride_row;     // from tap to tap over H, or over T
  int64_t stride_column;  // from tap to tap over W
};

struct ConvSizes {
  int64_t B, T, H, W, Ci, Co;
  bool temporal;  // 3x1x1, else 1x3x3
};

struct NormActConvParams {
  const void* x;  // (B, T, H, W, Ci) of dtype
  ConvWeight weight;
  const void* bias;      // (Co,) acc, or null
  const void* temb;      // (B, T, Co) acc, or null
  const void* residual;  // (B, T, H, W, Co) of dtype, or null
  const void* mix;       // (B, T) acc, or null; needs residual
  void* out;             // (B, T, H, W, Co) of dtype, contiguous
  void* out_stats;       // (B, T, Co, 2) acc: out's channel statistics; null where not wanted
  ConvSizes sizes;
  ImageStrides stride_x, stride_residual;
  NormParams norm;
  DType dtype;
};

struct NormActConvBackwardParams {
  const void* grad;  // (B, T, H, W, Co) of dtype: of out
  const void* x;     // (B, T, H, W, Ci) of dtype
  ConvWeight weight;
  const void* bias;  // (Co,) acc, or null
  const void* temb;  // (B, T, Co) acc, or null
  const void* mix;   // (B, T) acc, or null
  bool need_x;  // dx and the norm's gradients
  void* dx;     // (B, T, H, W, Ci) of dtype, contiguous
  // Null where not wanted:
  void* dweight;       // (Co, Ci, 1, 3, 3) or (Co, Ci, 3, 1, 1) of dtype, contiguous
  void* dbias;         // (Co,) acc
  void* dnorm_weight;  // (Ci,) acc
  void* dnorm_bias;    // (Ci,) acc
  void* dscale;        // (B, Ci) acc
  void* dshift;        // (B, Ci) acc
  void* dtemb;         // (B, T, Co) acc
  void* dmix;          // (B, T) acc
  ConvSizes sizes;
  ImageStrides stride_grad, stride_x;
  NormParams norm;
  DType dtype;
};

}  // namespace vdiff
