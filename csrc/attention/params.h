// What the attention kernels take: raw pointers, sizes, strides in elements.
// acc: double where q is double, else float.
#pragma once

#include <cstdint>

#include "common/scalar.h"
#include "norm/params.h"

namespace vdiff {

// The rows of a (B, T, H, W, N, D) tensor: any outer strides, unit stride over D.
// Context k, v are one line of S pixels: (B, T, S, N, D) has stride_h = 0, and (B, S, N, D) stride_t = 0 as well.
template <class Pointer>
struct PixelRows {
  Pointer data;
  int64_t stride_b, stride_t, stride_h, stride_w, stride_n;
};
using InputRows = PixelRows<const void*>;
using OutputRows = PixelRows<void*>;

// A dense bias (N, L, S), or a relative one: temporal (N, T+S-1), spatial (N, 2H-1, 2W-1).
struct AttentionBias {
  const void* data;  // null: no bias
  DType dtype;       // its own, not q's
  bool relative;
  int64_t stride_n, stride_0, stride_1;  // heads, then the table's dimensions; temporal and relative: stride_1 alone
};

struct TemporalAttentionParams {
  InputRows q;     // (B, T, H, W, N, D)
  InputRows k, v;  // (B, S, H, W, N, D)
  AttentionBias bias;
  const bool* focus_present;  // (B, T), null: none; S == T
  const void* rotary;         // (T, R/2) acc, angles in radians, null: none; S == T
  int64_t stride_focus_b, stride_focus_t, stride_rotary_t, stride_rotary_r;
  int64_t B, T, S, H, W, N, D, R;
  double scale;
  bool causal;
  DType dtype;  // of all but the bias, rotary, lse and dbias
};

struct TemporalAttentionFwdParams : TemporalAttentionParams {
  OutputRows out;  // (B, T, H, W, N, D)
  void* lse;       // (B, T, H, W, N) acc, contiguous, null: not wanted
};

struct TemporalAttentionBwdParams : TemporalAttentionParams {
  InputRows grad_out;  // (B, T, H, W, N, D)
  InputRows out;       // (B, T, H, W, N, D), null where the kernels need neither it nor lse
  const void* lse;     // (B, T, H, W, N) acc, contiguous
  OutputRows dq;       // (B, T, H, W, N, D)
  OutputRows dk, dv;   // (B, S, H, W, N, D)
  void* dbias;         // as the bias, acc, contiguous, null: not wanted
};

struct SpatialAttentionParams {
  InputRows q;     // (B, T, H, W, N, D)
  InputRows k, v;  // (B, T, KH, KW, N, D): the frame's pixels (KH, KW) = (H, W), or context (1, S)
  AttentionBias bias;
  const bool* key_mask;  // (B, S), true: may be attended; null: all may; context only
  int64_t stride_mask_b, stride_mask_s;
  int64_t B, T, H, W, KH, KW, N, D;
  double scale;
  bool shared_context;  // k, v are the same for every frame
  DType dtype;          // of all but the bias, lse and dbias
};

struct SpatialAttentionFwdParams : SpatialAttentionParams {
  OutputRows out;  // (B, T, H, W, N, D)
  void* lse;       // (B, T, H, W, N) acc, contiguous, null: not wanted
};

struct SpatialAttentionBwdParams : SpatialAttentionParams {
  InputRows grad_out;  // (B, T, H, W, N, D)
  InputRows out;       // (B, T, H, W, N, D), null where the kernels need neither it nor lse
  const void* lse;     // (B, T, H, W, N) acc, contiguous
  OutputRows dq;       // (B, T, H, W, N, D)
  OutputRows dk, dv;   // as k and v; summed over the frames where they share it
  void* dbias;         // as the bias, acc, contiguous, null: not wanted
};

// A weight (rows, columns) as nn.Linear holds it.
struct LinearWeight {
  const void* data;  // of dtype
  int64_t stride_row, stride_column;
};

// What stands around the attention of a layer: out = linear(attention(linear(norm(x) + pos_emb))) + residual.
struct LayerParams {
  const void* x;        // (B, T, H, W, C)
  LinearWeight w_qkv;   // (3*N*D, C)
  LinearWeight w_out;   // (Co, N*D)
  const void* b_qkv;    // (3*N*D,) acc, null: none
  const void* b_out;    // (Co,) acc, null: none
  const void* pos_emb;  // (T, C) acc, contiguous, null: none
  NormParams norm;      // layer, rms or none, without scale and shift
  int64_t C, Co;
  ImageStrides stride_x;
};

// Attention: TemporalAttentionParams or SpatialAttentionParams, whose q, k and v are not there.
template <class Attention>
struct LayerFwdParams {
  Attention attention;
  LayerParams layer;
  const void* residual;  // (B, T, H, W, Co), null: none
  void* out;             // (B, T, H, W, Co), contiguous
  ImageStrides stride_residual;
};

template <class Attention>
struct LayerBwdParams {
  Attention attention;
  LayerParams layer;
  const void* grad_out;  // (B, T, H, W, Co)
  void* dx;              // (B, T, H, W, C), contiguous
  void* dw_qkv;          // (3*N*D, C) acc
  void* dw_out;          // (Co, N*D) acc
  // acc; null where not wanted:
  void* db_qkv;          // (3*N*D,)
  void* db_out;          // (Co,)
  void* dnorm_weight;    // (C,)
  void* dnorm_bias;      // (C,)
  void* dpos_emb;        // (T, C)
  void* dbias;           // as the bias
  bool residual_is_x;    // x is the residual too, and dx of both; Co == C
  ImageStrides stride_grad;
};

using TemporalLayerFwdParams = LayerFwdParams<TemporalAttentionParams>;
using TemporalLayerBwdParams = LayerBwdParams<TemporalAttentionParams>;
using SpatialLayerFwdParams = LayerFwdParams<SpatialAttentionParams>;
using SpatialLayerBwdParams = LayerBwdParams<SpatialAttentionParams>;

}  // namespace vdiff
