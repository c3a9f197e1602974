#include "attention/cpu/backward.h"

namespace vdiff {
inline namespace VDIFF_ISA {

template <class A>
template <int64_t kVectors>
void SequenceBackward<A>::score_gradients(int64_t S, const Rows<const A>& k, const Rows<const A>& v, const BiasTile<A>& bias) {
  constexpr int64_t kBlock = kVectors * kLanes<A>;
  Vec<A> best[kVectors], total[kVectors], delta[kVectors];
  for (int64_t w = 0; w < kVectors; ++w) {
    best[w] = splat(A(-INFINITY));
    total[w] = delta[w] = Vec<A>{};
  }
  score_block<kVectors>(k, S, shape_.D, q_columns_.get(), bias, p_.get(), best);
  exponentials<kVectors>(p_.get(), S, best, total);
  for (int64_t w = 0; w < kVectors; ++w) total[w] = inverse(total[w]);
  for_row_tiles<kVectors>(S, [&](auto number, int64_t j) {
    constexpr int64_t kRows = decltype(number)::kValue;
    RegisterTile<A, kRows, kVectors> dp;
    dp.zero();
    dp.add(v[j], v.stride, 1, g_columns_.get(), kBlock, shape_.D, S - j);
    dp.each([&](Vec<A> value, int64_t r, int64_t w) {
      if (j + r >= S) return;
      const int64_t at = (j + r) * kBlock + w * kLanes<A>;
      const Vec<A> p = load_vector(p_ + at) * total[w];
      const Vec<A> seen = p == 0 ? Vec<A>{} : value;  // v may hold anything where it is masked
      delta[w] += p * seen;
      store_vector(p_ + at, p);
      store_vector(ds_ + at, seen);
    });
  });
  for (int64_t j = 0; j < S; ++j)
    for (int64_t w = 0; w < kVectors; ++w) {
      const int64_t at = j * kBlock + w * kLanes<A>;
      const Vec<A> p = load_vector(p_ + at);
      store_vector(ds_ + at, p == 0 ? Vec<A>{} : p * (load_vector(ds_ + at) - delta[w]));
    }
}

template <class A>
template <int64_t kBlock>
void SequenceBackward<A>::weigh_queries(
    int64_t S, const A* weights, const Rows<const A>& rows, int64_t queries, bool finite, A scale, bool adds, const Rows<A>& to) {
  for_vector_tiles(ceil_div(shape_.D, kLanes<A>), [&](auto vectors, int64_t first) {
    constexpr int64_t kWidth = decltype(vectors)::kValue;
    const int64_t d = first * kLanes<A>;
    for_row_tiles<kWidth>(S, [&](auto number, int64_t j) {
      const int64_t have = S - j;
      RegisterTile<A, decltype(number)::kValue, kWidth> tile;
      tile.zero();
      if (finite) {
        tile.add(weights + j * kBlock, kBlock, 1, rows.data + d, rows.stride, queries, have);
      } else {
        tile.add_nonzero(weights + j * kBlock, kBlock, 1, rows.data + d, rows.stride, queries, have);
      }
      tile.each([&](Vec<A> sum, int64_t r, int64_t w) {
        A* at = to[j + r] + d + w * kLanes<A>;
        if (r < have) store_vector(at, adds ? load_vector(at) + sum * scale : sum * scale);
      });
    });
  });
}

template <class A>
template <int64_t kBlock>
void SequenceBackward<A>::weigh_keys(
    int64_t S, const A* weights, const Rows<const A>& rows, int64_t queries, bool finite, A scale, const Rows<A>& to) {
  for_vector_tiles(ceil_div(shape_.D, kLanes<A>), [&](auto vectors, int64_t first) {
    constexpr int64_t kWidth = decltype(vectors)::kValue;
    const int64_t d = first * kLanes<A>;
    for_row_tiles<kWidth>(queries, [&](auto number, int64_t i) {
      using Sums = RegisterTile<A, decltype(number)::kValue, kWidth>;
      Sums total;
      total.zero();
      for (int64_t key = 0; key < S; key += kKeyTerms) {
        const int64_t count = min_of(kKeyTerms, S - key);
        const A* weight = weights + key * kBlock + i;
        Sums part;
        part.zero();
        if (finite) {
          part.add(weight, 1, kBlock, rows[key] + d, rows.stride, count);
        } else {
          part.add_nonzero(weight, 1, kBlock, rows[key] + d, rows.stride, count, queries - i);
        }
        total.each([&](Vec<A>& sum, int64_t r, int64_t w) { sum += part.sum[r][w]; });
      }
      total.each([&](Vec<A> sum, int64_t r, int64_t w) {
        if (i + r < queries) store_vector(to[i + r] + d + w * kLanes<A>, sum * scale);
      });
    });
  });
}

template <class A>
void SequenceBackward<A>::differentiate(
    int64_t S, const Rows<const A>& q, const Rows<const A>& k, const Rows<const A>& v, const Rows<const A>& g,
    const FiniteRows& finite, const BiasSource<A>& bias, const BiasSums<A>& sums, const Rows<A>& dq, const Rows<A>& dk,
    const Rows<A>& dv, const Rows<A>& out, bool adds) {
  for_query_blocks<A>(shape_.L, [&](auto vectors, int64_t query) {
    constexpr int64_t kVectors = decltype(vectors)::kValue, kBlock = kVectors * kLanes<A>;
    const int64_t queries = min_of(kBlock, shape_.L - query);
    const Rows<const A> q_block{q[query], q.stride}, g_block{g[query], g.stride};
    to_columns(q_block, queries, kBlock, shape_.D, shape_.scale, q_columns_.get());
    to_columns(g_block, queries, kBlock, shape_.D, A(1), g_columns_.get());
    score_gradients<kVectors>(S, k, v, bias.block(query, kBlock, 0, S));
    const bool holds = adds || query > 0;
    weigh_queries<kBlock>(S, p_, g_block, queries, finite.g, A(1), holds, dv);           // (4)
    weigh_queries<kBlock>(S, ds_, q_block, queries, finite.q, shape_.scale, holds, dk);  // (6)
    weigh_keys<kBlock>(S, ds_, k, queries, finite.k, shape_.scale, dq.from(query));
    if (out.data) weigh_keys<kBlock>(S, p_, v, queries, finite.v, A(1), out.from(query));
    sums.add(query, queries, kBlock, S, ds_.get());
  });
}

template class SequenceBackward<float>;
template class SequenceBackward<double>;

}  // namespace VDIFF_ISA
}  // namespace vdiff
