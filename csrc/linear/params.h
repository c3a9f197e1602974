// What the kernels of linear layers take: raw pointers, sizes, strides in elements. acc: float.
#pragma once

#include <cstdint>

#include "norm/params.h"

namespace vdiff {

// out = gate * ((norm(x) + pos_emb) weight^T + bias) + residual. M = B*T*H*W pixels; vectors are contiguous acc, null where absent.
struct NormLinearParams {
  const void* x;         // (M, C) of dtype, unit stride over C
  const void* weight;    // (Co, C) of dtype, unit stride over C
  const void* bias;      // (Co,)
  const void* pos_emb;   // (T, C)
  const void* gate;      // (B, Co)
  const void* residual;  // (M, Co) of dtype, unit stride over Co
  void* out;             // (M, Co) of dtype, contiguous
  int64_t B, T, H, W, C, Co;
  int64_t stride_x, stride_weight, stride_residual;
  NormParams norm;
  DType dtype;

  int64_t pixels() const { return H * W; }  // of a frame
  int64_t M() const { return B * T * H * W; }
};

struct NormLinearBackwardParams {
  const void* grad;  // (M, Co) of dtype, unit stride over Co: of out
  const void* x;     // as forward, like the next four
  const void* weight;
  const void* bias;
  const void* pos_emb;
  const void* gate;
  void* dx;       // (M, C) of dtype, contiguous; null where not wanted, like all others
  void* dweight;  // (Co, C) of dtype, contiguous
  void* dbias;    // acc, like the vectors, and like the next six
  void* dgate;
  void* dpos_emb;
  void* dnorm_weight;
  void* dnorm_bias;
  void* dscale;
  void* dshift;
  int64_t B, T, H, W, C, Co;
  int64_t stride_grad, stride_x, stride_weight;
  NormParams norm;
  DType dtype;

  int64_t pixels() const { return H * W; }
  int64_t M() const { return B * T * H * W; }
};

}  // namespace vdiff
