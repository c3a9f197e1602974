// Attention of one sequence on the CPU, forward.
//
//   math      p[i,j] = exp(s[i,j] - max_j s) / sum,  lse_i = max_j s + log(sum)                             (2)
//             out_i  = sum_j p[i,j] v_j                                                                     (3)
//   blocks    up to kMaxKeys keys at once; more in blocks of kKeys, the sums so far rescaled to each new maximum
//   scratch   for kQueries queries: q as columns, one block's scores, a maximum and a sum a query
//   acc       float, double for double
//   order     set by the sequence's own sizes: a result depends on its sequence alone
#pragma once

#include "attention/cpu/sequence.h"

namespace vdiff {
inline namespace VDIFF_ISA {

constexpr int64_t kMaxKeys = 128, kKeys = 64;

template <class A>
class SequenceForward {
 public:
  explicit SequenceForward(const SequenceShape<A>& shape)
      : shape_(shape),
        keys_at_once_(shape.S <= kMaxKeys ? shape.S : kKeys),
        columns_(kQueries * shape.D),
        scores_(keys_at_once_ * kMaxBlock<A> + kMaxTileRows) {
    scores_.zero(keys_at_once_ * kMaxBlock<A> + kMaxTileRows);
  }

  int64_t keys_at_once() const { return keys_at_once_; }

  // Queries [query, query + queries), at most kQueries, whose rows q holds.
  void begin(int64_t query, int64_t queries, const Rows<const A>& q);

  // Their attention to keys [key, key + count), at most keys_at_once(), of rows k and v; all keys ascending, and out then holds
  // the queries' results. finite: v's values. lse: query i of these at lse[i * stride_lse], null: not wanted.
  void attend(
      int64_t key, int64_t count, const Rows<const A>& k, const Rows<const A>& v, bool finite, const BiasSource<A>& bias,
      const Rows<A>& out, A* lse, int64_t stride_lse);

 private:
  // The queries from `lane` on, whose rows out holds.
  template <int64_t kVectors>
  void attend_block(
      int64_t lane, int64_t key, int64_t count, const Rows<const A>& k, const Rows<const A>& v, bool finite,
      const BiasSource<A>& bias, const Rows<A>& out, A* lse, int64_t stride_lse);

  const SequenceShape<A> shape_;
  const int64_t keys_at_once_;  // S, or kKeys
  int64_t query_ = 0, queries_ = 0;
  Scratch<A> columns_;  // (kQueries / block, D, block)
  Scratch<A> scores_;   // (keys_at_once, block)
  A best_[kQueries + kMaxBlock<A>], total_[kQueries + kMaxBlock<A>];
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
