#include "attention/cpu/forward.h"

namespace vdiff {
inline namespace VDIFF_ISA {

template <class A>
void SequenceForward<A>::begin(int64_t query, int64_t queries, const Rows<const A>& q) {
  query_ = query;
  queries_ = queries;
  for_vector_tiles(ceil_div(queries, kLanes<A>), [&](auto vectors, int64_t first) {
    const int64_t lane = first * kLanes<A>, lanes = decltype(vectors)::kValue * kLanes<A>;
    const Rows<const A> rows{q[lane], q.stride};
    to_columns(rows, min_of(lanes, queries - lane), lanes, shape_.D, shape_.scale, columns_ + lane * shape_.D);
  });
}

template <class A>
template <int64_t kVectors>
void SequenceForward<A>::attend_block(
    int64_t lane, int64_t key, int64_t count, const Rows<const A>& k, const Rows<const A>& v, bool finite,
    const BiasSource<A>& bias, const Rows<A>& out, A* lse, int64_t stride_lse) {
  constexpr int64_t kBlock = kVectors * kLanes<A>;
  const int64_t queries = min_of(kBlock, queries_ - lane);
  const bool first = key == 0, last = key + count == shape_.S;

  // (1) s = scale * q k^T + bias
  Vec<A> best[kVectors], total[kVectors], before[kVectors];
  for (int64_t w = 0; w < kVectors; ++w) {
    best[w] = before[w] = first ? splat(A(-INFINITY)) : load_vector(best_ + lane + w * kLanes<A>);
    total[w] = first ? Vec<A>{} : load_vector(total_ + lane + w * kLanes<A>);
  }
  score_block<kVectors>(
      k, count, shape_.D, columns_ + lane * shape_.D, bias.block(query_ + lane, kBlock, key, count), scores_.get(), best);

  // (2) p = exp(s - max), what came before rescaled to the new maximum
  A rescale[kBlock + kMaxTileRows], factor[kBlock + kMaxTileRows];
  if (!first) {
    for (int64_t w = 0; w < kVectors; ++w) before[w] -= best[w] == A(-INFINITY) ? Vec<A>{} : best[w];
    exp_nonpositive(before);
    for (int64_t w = 0; w < kVectors; ++w) {
      total[w] *= before[w];
      store_vector(rescale + w * kLanes<A>, before[w]);
    }
  }
  exponentials<kVectors>(scores_.get(), count, best, total);
  A scale = 1;
  if (!finite) {  // values near the largest number, whose sum before the division would be infinite: weights by a power of 2 less
    while (scale < A(shape_.S)) scale *= 2;
    for (int64_t i = 0; i < count * kBlock; ++i) scores_[i] *= 1 / scale;
  }
  for (int64_t w = 0; w < kVectors; ++w) {
    store_vector(best_ + lane + w * kLanes<A>, best[w]);
    store_vector(total_ + lane + w * kLanes<A>, total[w]);
    store_vector(factor + w * kLanes<A>, last ? scale * inverse(total[w]) : splat(A(1)));
  }
  if (last && lse) {
    A values[kBlock];
    for (int64_t w = 0; w < kVectors; ++w) store_vector(values + w * kLanes<A>, best[w] + log_of(total[w]));
    for (int64_t i = 0; i < queries; ++i) lse[i * stride_lse] = values[i];
  }

  // (3) out = p v / sum
  for_vector_tiles(ceil_div(shape_.D, kLanes<A>), [&](auto vectors, int64_t first_vector) {
    constexpr int64_t kWidth = decltype(vectors)::kValue;
    const int64_t d = first_vector * kLanes<A>;
    for_row_tiles<kWidth>(queries, [&](auto number, int64_t i) {
      RegisterTile<A, decltype(number)::kValue, kWidth> tile;
      A* to = out[i] + d;
      if (first) {
        tile.zero();
      } else {
        tile.each([&](Vec<A>& sum, int64_t r, int64_t w) {
          sum = i + r < queries ? rescale[i + r] * load_vector(to + r * out.stride + w * kLanes<A>) : Vec<A>{};
        });
      }
      if (finite) {
        tile.add(scores_ + i, 1, kBlock, v.data + d, v.stride, count);
      } else {
        tile.add_nonzero(scores_ + i, 1, kBlock, v.data + d, v.stride, count, queries - i);
      }
      tile.each([&](Vec<A> sum, int64_t r, int64_t w) {
        if (i + r < queries) store_vector(to + r * out.stride + w * kLanes<A>, sum * factor[i + r]);
      });
    });
  });
}

template <class A>
void SequenceForward<A>::attend(
    int64_t key, int64_t count, const Rows<const A>& k, const Rows<const A>& v, bool finite, const BiasSource<A>& bias,
    const Rows<A>& out, A* lse, int64_t stride_lse) {
  for_vector_tiles(ceil_div(queries_, kLanes<A>), [&](auto vectors, int64_t first) {
    const int64_t lane = first * kLanes<A>;
    A* block_lse = lse ? lse + lane * stride_lse : nullptr;
    attend_block<decltype(vectors)::kValue>(lane, key, count, k, v, finite, bias, out.from(lane), block_lse, stride_lse);
  });
}

template class SequenceForward<float>;
template class SequenceForward<double>;

}  // namespace VDIFF_ISA
}  // namespace vdiff
