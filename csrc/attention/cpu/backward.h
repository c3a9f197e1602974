// Attention of one sequence on the CPU, backward.
//
//   math      p as in forward.h, computed again from q and k
//             dv_j += sum_i p[i,j] g_i,  g the incoming gradient                                            (4)
//             dp[i,j] = <g_i, v_j>,  delta_i = sum_j p[i,j] dp[i,j],  ds = p * (dp - delta)                 (5)
//             dq_i = scale * sum_j ds[i,j] k_j,  dk_j += scale * sum_i ds[i,j] q_i                           (6)
//   blocks    a block of queries against all keys, so that softmax needs neither maxima nor sums of its own pass
//   scratch   a block's q and g as columns, its p and its ds: 2 * S * 24 values where vectors have 8 lanes
//   order     set by the sequence's own sizes
#pragma once

#include "attention/cpu/sequence.h"

namespace vdiff {
inline namespace VDIFF_ISA {

constexpr int64_t kKeyTerms = 512;  // of one sum; more are summed in parts

// Whether all values of each are finite; what is masked is then 0 times something finite, else it must be left out.
struct FiniteRows {
  bool q, k, v, g;
};

// Where the bias gradient is summed: ds of (i, j) goes to row[i] + column[j], in double, or in the result itself.
template <class A>
struct BiasSums {
  double* wide;  // at most one of the two; none: not wanted
  A* direct;
  const int64_t *row, *column;

  // ds: (S, lanes), of the queries [query, query + queries).
  void add(int64_t query, int64_t queries, int64_t lanes, int64_t S, const A* ds) const {
    if (wide) add_to(wide, query, queries, lanes, S, ds);
    if (direct) add_to(direct, query, queries, lanes, S, ds);
  }

 private:
  template <class U>
  void add_to(U* table, int64_t query, int64_t queries, int64_t lanes, int64_t S, const A* ds) const {
    for (int64_t j = 0; j < S; ++j, ds += lanes) {
      U* at = table + column[j];
      for (int64_t i = 0; i < queries; ++i) at[row[query + i]] += U(ds[i]);
    }
  }
};

template <class A>
class SequenceBackward {
 public:
  explicit SequenceBackward(const SequenceShape<A>& shape)
      : shape_(shape),
        q_columns_(kMaxBlock<A> * shape.D),
        g_columns_(kMaxBlock<A> * shape.D),
        p_(shape.S * kMaxBlock<A> + kMaxTileRows),
        ds_(shape.S * kMaxBlock<A> + kMaxTileRows) {
    p_.zero(shape.S * kMaxBlock<A> + kMaxTileRows);
    ds_.zero(shape.S * kMaxBlock<A> + kMaxTileRows);
  }

  // Rows of all L queries and of S keys, no more than the shape's, in scratch. Writes dq, and forward's result to out where that is
  // not null; writes dk and dv, or adds to what they hold; adds to sums what the bias gets.
  void differentiate(
      int64_t S, const Rows<const A>& q, const Rows<const A>& k, const Rows<const A>& v, const Rows<const A>& g,
      const FiniteRows& finite, const BiasSource<A>& bias, const BiasSums<A>& sums, const Rows<A>& dq, const Rows<A>& dk,
      const Rows<A>& dv, const Rows<A>& out, bool adds);

 private:
  // p and (5) of the block in the columns.
  template <int64_t kVectors>
  void score_gradients(int64_t S, const Rows<const A>& k, const Rows<const A>& v, const BiasTile<A>& bias);

  // to_j = or, if it adds, += scale * sum over the block's queries of weight[j, i] rows_i.
  template <int64_t kBlock>
  void weigh_queries(
      int64_t S, const A* weights, const Rows<const A>& rows, int64_t queries, bool finite, A scale, bool adds, const Rows<A>& to);

  // to_i = scale * sum over the keys of weight[j, i] rows_j.
  template <int64_t kBlock>
  void weigh_keys(
      int64_t S, const A* weights, const Rows<const A>& rows, int64_t queries, bool finite, A scale, const Rows<A>& to);

  const SequenceShape<A> shape_;
  Scratch<A> q_columns_, g_columns_;  // (D, block)
  Scratch<A> p_, ds_;                 // (S, block)
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
