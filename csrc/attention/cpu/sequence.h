// One sequence of attention on the CPU, and its scores: what forward and backward, temporal and spatial share.
//
//   math      s[i,j] = scale * <q_i, k_j> + bias[i,j]                                                       (1)
//   rows      in scratch, in acc, rotated where there is rotary embedding
//   layout    a block of up to three vectors of queries; its scores (keys, lanes), one query a lane, so that maxima and sums
//             over keys go lane by lane; q as columns (D, lanes): each element of a key times a vector of queries
//   masked    a pair that is masked, or whose bias is -inf, is left out of every sum, whatever its k and v hold
#pragma once

#include "attention/cpu/bias.h"
#include "attention/cpu/products.h"
#include "attention/cpu/rows.h"

namespace vdiff {
inline namespace VDIFF_ISA {

template <class A>
struct SequenceShape {
  int64_t L, S, D;
  A scale;
};

template <class A>
constexpr int64_t kMaxBlock = kMaxTileVectors * kLanes<A>;  // queries
constexpr int64_t kQueries = 96;                            // a multiple of every block of queries

// body(vectors, query): the blocks that L queries are taken in, of `vectors` vectors from `query` on.
template <class A, class Body>
[[gnu::always_inline]] inline void for_query_blocks(int64_t L, const Body& body) {
  for (int64_t begin = 0; begin < L; begin += kQueries)
    for_vector_tiles(ceil_div(min_of(kQueries, L - begin), kLanes<A>), [&](auto vectors, int64_t first) {
      body(vectors, begin + first * kLanes<A>);
    });
}

// scores (count, lanes) = (1) of count keys and the queries `columns` (D, lanes), which hold the scale; raises best to each
// query's largest. bias: by value, for the compiler knows of no reference that the scores do not lie where it points.
template <int64_t kVectors, class A>
void score_block(
    const Rows<const A>& k, int64_t count, int64_t D, const A* columns, BiasTile<A> bias, A* scores, Vec<A> (&best)[kVectors]) {
  constexpr int64_t kBlock = kVectors * kLanes<A>;
  Vec<A> largest[kVectors];
  for (int64_t v = 0; v < kVectors; ++v) largest[v] = best[v];
  for_row_tiles<kVectors>(count, [&](auto number, int64_t j) {
    constexpr int64_t kRows = decltype(number)::kValue;
    RegisterTile<A, kRows, kVectors> tile;
    tile.zero();
    tile.add(k[j], k.stride, 1, columns, kBlock, D, count - j);
    A* to = scores + j * kBlock;
    tile.each([&](Vec<A> product, int64_t r, int64_t v) {
      if (j + r >= count) return;
      const Vec<A> score = bias.template add<kVectors>(product, j + r, v);
      largest[v] = max_lanes(largest[v], score);
      store_vector(to + r * kBlock + v * kLanes<A>, score);
    });
  });
  for (int64_t v = 0; v < kVectors; ++v) best[v] = largest[v];
}

template <int64_t kRows, int64_t kVectors, class A>
[[gnu::always_inline]] inline void exponentials(A* scores, const Vec<A> (&shift)[kVectors], Vec<A> (&total)[kVectors]) {
  Vec<A> p[kRows * kVectors];
#pragma GCC unroll 8
  for (int64_t i = 0; i < kRows * kVectors; ++i) p[i] = load_vector(scores + i * kLanes<A>) - shift[i % kVectors];
  exp_nonpositive(p);
#pragma GCC unroll 8
  for (int64_t i = 0; i < kRows * kVectors; ++i) {
    store_vector(scores + i * kLanes<A>, p[i]);
    total[i % kVectors] += p[i];
  }
}

// scores = exp(scores - best), added to total; a query that sees nothing, best -inf, keeps its zeros.
template <int64_t kVectors, class A>
[[gnu::always_inline]] inline void exponentials(
    A* scores, int64_t count, const Vec<A> (&best)[kVectors], Vec<A> (&total)[kVectors]) {
  Vec<A> shift[kVectors];
  for (int64_t v = 0; v < kVectors; ++v) shift[v] = best[v] == A(-INFINITY) ? Vec<A>{} : best[v];
  constexpr int64_t kRows = kVectors == 1 ? 4 : 2;
  int64_t j = 0;
  for (; j + kRows <= count; j += kRows, scores += kRows * kVectors * kLanes<A>)
    exponentials<kRows, kVectors>(scores, shift, total);
  for (; j < count; ++j, scores += kVectors * kLanes<A>) exponentials<1, kVectors>(scores, shift, total);
}

// 1 / total; 0 where nothing was seen.
template <class V>
[[gnu::always_inline]] inline V inverse(V total) {
  return total == 0 ? V{} : 1 / total;
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
