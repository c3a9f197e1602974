#include "attention/cuda/to_sequences.h"

#include <initializer_list>

#include "attention/cuda/plan.h"

namespace vdiff {
namespace {

// ----------------------------------------------------------------------------------------------------------------- rows

// Sequences of frames: one at each (B, H, W).
template <class Pointer>
SequenceRows frames(const PixelRows<Pointer>& rows, int64_t length) {
  return {const_cast<void*>(rows.data), {rows.stride_b, rows.stride_h, rows.stride_w}, rows.stride_n, {length, rows.stride_t, 0}};
}

// Sequences of the pixels (H, W): one at each (B, T).
template <class Pointer>
SequenceRows pixels(const PixelRows<Pointer>& rows, int64_t H, int64_t W) {
  const bool even = H == 1 || rows.stride_h == W * rows.stride_w;
  const RowLine row = even ? RowLine{H * W, rows.stride_w, 0} : RowLine{W, rows.stride_w, rows.stride_h};
  return {const_cast<void*>(rows.data), {rows.stride_b, rows.stride_t, 0}, rows.stride_n, row};
}

// lse (B, T, H, W, N), contiguous, null: not there.
template <class Params>
PixelRows<const void*> lse_rows(const Params& p, const void* lse) {
  return {lse, p.T * p.H * p.W * p.N, p.H * p.W * p.N, p.W * p.N, p.N, 1};
}

const void* moved(const AttentionBias& bias, int64_t elements) {
  return static_cast<const char*>(bias.data) + elements * element_bytes(bias.dtype);
}

// The widest of 16 and 4 bytes that all rows can be moved in, or one element.
int64_t vector_bytes(const SequenceAttention& p, int64_t element, std::initializer_list<const SequenceRows*> tensors) {
  for (const int64_t bytes : {16, 4}) {
    bool fits = p.D * element % bytes == 0;
    const auto divides = [&](int64_t size, int64_t stride) { return size <= 1 || stride * element % bytes == 0; };
    for (const SequenceRows* rows : tensors) {
      fits = fits && reinterpret_cast<uintptr_t>(rows->data) % bytes == 0 && divides(p.N, rows->stride_n);
      for (int i = 0; i < 3; ++i) fits = fits && divides(p.size[i], rows->stride[i]);
      fits = fits && divides(rows->row.length.value(), rows->row.step) && rows->row.line_step * element % bytes == 0;
    }
    if (fits) return bytes;
  }
  return element;
}

void fill(SequenceAttention& s, const attention::Sizes& sizes) {
  for (int i = 0; i < 3; ++i) s.size[i] = sizes.places[i];
  s.N = sizes.N, s.L = sizes.L, s.S = sizes.S, s.D = sizes.D;
}

// ------------------------------------------------------------------------------------------------------------- temporal

void fill(SequenceAttention& s, const TemporalAttentionParams& p, const float2* rotary_table) {
  s.q = frames(p.q, p.T);
  s.k = frames(p.k, p.S);
  s.v = frames(p.v, p.S);
  fill(s, attention::sizes_of(p));
  s.R = p.rotary ? p.R : 0;
  s.scale = float(p.scale);
  s.causal = p.causal;
  s.focus_present = {p.focus_present, p.stride_focus_b, p.stride_focus_t};
  s.rotary = p.rotary ? rotary_table : nullptr;
  if (p.bias.data == nullptr) return;
  const AttentionBias& b = p.bias;
  s.bias = b.relative ? BiasTable{moved(b, (p.T - 1) * b.stride_1), b.dtype, b.stride_n, {p.T, -b.stride_1, 0}, {p.S, b.stride_1, 0}}
                      : BiasTable{b.data, b.dtype, b.stride_n, {p.T, b.stride_0, 0}, {p.S, b.stride_1, 0}};
}

BiasGradient bias_gradient(const TemporalAttentionBwdParams& p) {
  const auto data = static_cast<float*>(p.dbias);
  const int64_t entries = attention::bias_entries(p);
  if (p.bias.relative) return {data, entries, p.T - 1, {p.T, -1, 0}, {p.S, 1, 0}, true};
  return {data, entries, 0, {p.T, p.S, 0}, {p.S, 1, 0}, false};
}

// -------------------------------------------------------------------------------------------------------------- spatial

void fill(SequenceAttention& s, const SpatialAttentionParams& p) {
  s.q = pixels(p.q, p.H, p.W);
  s.k = pixels(p.k, p.KH, p.KW);
  s.v = pixels(p.v, p.KH, p.KW);
  fill(s, attention::sizes_of(p));
  s.scale = float(p.scale);
  s.key_mask = {p.key_mask, p.stride_mask_b, p.stride_mask_s};
  if (p.bias.data == nullptr) return;
  const AttentionBias& b = p.bias;
  s.bias = b.relative ? BiasTable{moved(b, (p.H - 1) * b.stride_0 + (p.W - 1) * b.stride_1), b.dtype, b.stride_n,
                                  {p.W, -b.stride_1, -b.stride_0}, {p.W, b.stride_1, b.stride_0}}
                      : BiasTable{b.data, b.dtype, b.stride_n, {s.L, b.stride_0, 0}, {s.S, b.stride_1, 0}};
}

BiasGradient bias_gradient(const SpatialAttentionBwdParams& p) {
  const auto data = static_cast<float*>(p.dbias);
  const int64_t entries = attention::bias_entries(p), L = p.H * p.W, S = p.KH * p.KW, across = 2 * p.W - 1;
  if (p.bias.relative) return {data, entries, (p.H - 1) * across + p.W - 1, {p.W, -1, -across}, {p.W, 1, across}, true};
  return {data, entries, 0, {L, S, 0}, {S, 1, 0}, false};
}

// tensors: those whose rows of D are moved.
void finish(SequenceAttention& s, DType dtype, std::initializer_list<const SequenceRows*> tensors) {
  s.vector_bytes = vector_bytes(s, element_bytes(dtype), tensors);
  s.by_pieces = Divisor(s.D * element_bytes(dtype) / s.vector_bytes);
  s.by_heads = Divisor(s.N);
  for (int i = 0; i < 3; ++i) s.by_size[i] = Divisor(s.size[i]);
}

void finish(SequenceAttentionFwd& s, DType dtype) { finish(s, dtype, {&s.q, &s.k, &s.v, &s.out}); }

void finish(SequenceAttentionBwd& s, DType dtype) {
  finish(s, dtype, {&s.q, &s.k, &s.v, &s.grad_out, &s.out, &s.dq, &s.dk, &s.dv});
}

}  // namespace

SequenceAttentionFwd to_sequences(const TemporalAttentionFwdParams& p, const float2* rotary_table) {
  SequenceAttentionFwd s{};
  fill(s, p, rotary_table);
  s.out = frames(p.out, p.T);
  s.lse = frames(lse_rows(p, p.lse), p.T);
  finish(s, p.dtype);
  return s;
}

SequenceAttentionBwd to_sequences(const TemporalAttentionBwdParams& p, const float2* rotary_table) {
  SequenceAttentionBwd s{};
  fill(s, p, rotary_table);
  s.grad_out = frames(p.grad_out, p.T);
  s.out = frames(p.out, p.T);
  s.lse = frames(lse_rows(p, p.lse), p.T);
  s.dq = frames(p.dq, p.T);
  s.dk = frames(p.dk, p.S);
  s.dv = frames(p.dv, p.S);
  s.dbias = bias_gradient(p);
  finish(s, p.dtype);
  return s;
}

SequenceAttentionFwd to_sequences(const SpatialAttentionFwdParams& p) {
  SequenceAttentionFwd s{};
  fill(s, p);
  s.out = pixels(p.out, p.H, p.W);
  s.lse = pixels(lse_rows(p, p.lse), p.H, p.W);
  finish(s, p.dtype);
  return s;
}

SequenceAttentionBwd to_sequences(const SpatialAttentionBwdParams& p) {
  SequenceAttentionBwd s{};
  fill(s, p);
  s.grad_out = pixels(p.grad_out, p.H, p.W);
  s.out = pixels(p.out, p.H, p.W);
  s.lse = pixels(lse_rows(p, p.lse), p.H, p.W);
  s.dq = pixels(p.dq, p.H, p.W);
  s.dk = pixels(p.dk, p.KH, p.KW);
  s.dv = pixels(p.dv, p.KH, p.KW);
  s.dbias = bias_gradient(p);
  s.shared_keys = p.shared_context;
  finish(s, p.dtype);
  return s;
}

}  // namespace vdiff
