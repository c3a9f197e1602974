// What the feed-forward kernels take: raw pointers, sizes, strides in elements.
// acc: double where x is double, else float.
#pragma once

#include <cstdint>

#include "common/scalar.h"

namespace vdiff {

struct GegluParams {
  const void* x;       // (M, C) of dtype, unit stride over C
  const void* weight;  // (2E, C) of dtype, any strides
  const void* bias;    // (2E,) acc, contiguous, or null
  void* out;           // (M, E) of dtype, contiguous
  int64_t M, C, E;
  int64_t stride_x;
  int64_t stride_weight_e, stride_weight_c;
  DType dtype;
};

struct GegluBackwardParams {
  const void* grad;    // (M, E) of dtype, unit stride over E: of out
  const void* x;       // (M, C) of dtype, unit stride over C
  const void* weight;  // (2E, C) of dtype, any strides
  const void* bias;    // (2E,) acc, contiguous, or null
  void* dx;            // (M, C) of dtype, contiguous
  void* dweight;       // (2E, C) of dtype, contiguous
  void* dbias;         // (2E,) acc, null where there is no bias
  int64_t M, C, E;
  int64_t stride_grad, stride_x;
  int64_t stride_weight_e, stride_weight_c;
  DType dtype;
};

}  // namespace vdiff
