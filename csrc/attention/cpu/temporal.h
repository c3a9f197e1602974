// Temporal attention of single sequences on the CPU, for kernels that gather the rows of a task's pixels and heads as they like:
// the operator's own, and layers whose q, k and v are in a task's scratch anyway.
#pragma once

#include "attention/cpu/backward.h"
#include "attention/cpu/forward.h"
#include "attention/params.h"

namespace vdiff {
inline namespace VDIFF_ISA {

// The biases of all heads and the masks of one sample, as tiles that a task's sequences share.
template <class A>
class TemporalBias {
 public:
  explicit TemporalBias(const TemporalAttentionParams& p)
      : p_(p),
        row_(p.T, p.T, 0, p.bias.relative ? -p.bias.stride_1 : p.bias.stride_0),
        column_(p.S, p.S, 0, p.bias.stride_1),
        any_(p.bias.data || p.causal || p.focus_present),
        head_(p.S * padded_queries()),
        stored_(p.N * head_ * int64_t(sizeof(A)) <= kMaxStoredBytes),
        tiles_(!any_ ? 0 : stored_ ? p.N * head_ : p.S * kMaxBlock<A>) {}

  // Whether there is anything to add; else no pair can be masked.
  bool any() const { return any_; }

  // body(source), the source that of head n in sample b.
  template <class Body>
  void with(int64_t b, int64_t n, const Body& body) {
    if (!any_) return body(BiasSource<A>());
    if (!stored_) return body(MadeTiles<A>(view(b, n), tiles_));
    if (sample_ < 0 || (p_.focus_present && sample_ != b)) store(b);
    body(StoredTiles<A>(tiles_ + n * head_, p_.S));
  }

 private:
  static constexpr int64_t kMaxStoredBytes = 256 << 10;

  int64_t padded_queries() const { return ceil_div(p_.T, kLanes<A>) * kLanes<A>; }

  BiasView<A> view(int64_t b, int64_t n) const {
    const AttentionBias& bias = p_.bias;
    const int64_t bytes = bias.dtype == DType::Float64 ? 8 : bias.dtype == DType::Float32 ? 4 : 2;
    const int64_t origin = n * bias.stride_n + (bias.relative ? (p_.T - 1) * bias.stride_1 : 0);
    const void* data = bias.data ? static_cast<const char*>(bias.data) + origin * bytes : nullptr;
    const bool* isolated = p_.focus_present ? p_.focus_present + b * p_.stride_focus_b : nullptr;
    return {data, bias.dtype, row_.get(), column_.get(), p_.causal, isolated, p_.stride_focus_t, p_.T};
  }

  void store(int64_t b) {
    for (int64_t n = 0; n < p_.N; ++n)
      for_query_blocks<A>(p_.T, [&](auto vectors, int64_t query) {
        view(b, n).fill(query, decltype(vectors)::kValue * kLanes<A>, 0, p_.S, tiles_ + n * head_ + query * p_.S);
      });
    sample_ = b;
  }

  const TemporalAttentionParams& p_;
  TableIndex row_, column_;
  bool any_;
  int64_t head_;
  bool stored_;
  Scratch<A> tiles_;  // (N, head) stored, or one
  int64_t sample_ = -1;
};

// The cosines and sines of a call.
template <class A>
Rotation<A> temporal_rotation(const TemporalAttentionParams& p) {
  return Rotation<A>(p.rotary ? p.T : 0, p.rotary ? p.R : 0, [&](int64_t t, int64_t m) {
    return static_cast<const A*>(p.rotary)[t * p.stride_rotary_t + m * p.stride_rotary_r];
  });
}

// A task's forward: of p, its sizes, bias and masks.
template <class A>
class TemporalForward {
 public:
  explicit TemporalForward(const TemporalAttentionParams& p)
      : T_(p.T), S_(p.S), bias_(p), sequence_({p.T, p.S, p.D, A(p.scale)}) {}

  bool masks() const { return bias_.any(); }

  // The sequence of head n in sample b, its rows (frames, D) in scratch and rotated; out may be q. finite: v's values.
  // lse: frame i at lse[i * stride_lse], null: not wanted.
  void attend(
      int64_t b, int64_t n, const Rows<const A>& q, const Rows<const A>& k, const Rows<const A>& v, bool finite,
      const Rows<A>& out, A* lse = nullptr, int64_t stride_lse = 0) {
    bias_.with(b, n, [&](const BiasSource<A>& bias) {
      for (int64_t query = 0; query < T_; query += kQueries) {
        A* range_lse = lse ? lse + query * stride_lse : nullptr;
        sequence_.begin(query, min_of(kQueries, T_ - query), {q[query], q.stride});
        for (int64_t key = 0; key < S_; key += sequence_.keys_at_once()) {
          const int64_t count = min_of(sequence_.keys_at_once(), S_ - key);
          sequence_.attend(
              key, count, {k[key], k.stride}, {v[key], v.stride}, finite, bias, {out[query], out.stride}, range_lse, stride_lse);
        }
      }
    });
  }

 private:
  const int64_t T_, S_;
  TemporalBias<A> bias_;
  SequenceForward<A> sequence_;
};

// A task's backward.
template <class A>
class TemporalBackward {
 public:
  explicit TemporalBackward(const TemporalAttentionParams& p) : S_(p.S), bias_(p), sequence_({p.T, p.S, p.D, A(p.scale)}) {}

  bool masks() const { return bias_.any(); }

  // The sequence of head n in sample b, as in TemporalForward; SequenceBackward::differentiate says what becomes of dq, dk, dv.
  void differentiate(
      int64_t b, int64_t n, const Rows<const A>& q, const Rows<const A>& k, const Rows<const A>& v, const Rows<const A>& g,
      const FiniteRows& finite, const BiasSums<A>& sums, const Rows<A>& dq, const Rows<A>& dk, const Rows<A>& dv,
      const Rows<A>& out = {nullptr, 0}) {
    bias_.with(b, n, [&](const BiasSource<A>& bias) {
      sequence_.differentiate(S_, q, k, v, g, finite, bias, sums, dq, dk, dv, out, /*adds=*/false);
    });
  }

 private:
  const int64_t S_;
  TemporalBias<A> bias_;
  SequenceBackward<A> sequence_;
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
