// What the forward and backward kernels of short sequences share: scores, masks and the softmax of one tile in a warp's
// registers.
//
//   a sequence of up to kRows = 8, 16 or 32 queries and keys is one tile, a pair of sequences where kRows = 8
#pragma once

#include "attention/cuda/plan.h"
#include "attention/cuda/sm80/bias_entries.cuh"
#include "attention/cuda/sm80/rotary.cuh"
#include "attention/cuda/sm80/row_copies.cuh"
#include "attention/cuda/sm80/row_flags.cuh"
#include "attention/cuda/sm80/softmax.cuh"
#include "common/cuda/products.cuh"

namespace vdiff::attention {

// One tile's place: its sequences and what hides keys from queries.
template <class S>
struct TileMask {
  int64_t bias_head[S::kPaired ? 2 : 1];
  uint32_t isolated[S::kPaired ? 2 : 1], seen[S::kPaired ? 2 : 1];  // bit i: isolated_frames, bit j: seen_keys

  // first: the place of the tile's first sequence. there: how many are.
  __device__ TileMask(const SequenceAttention& p, const SequenceIndex& first, int there) {
#pragma unroll
    for (int s = 0; s < (S::kPaired ? 2 : 1); ++s) {
      const SequenceIndex place = s < there ? neighbour(p, first, s) : first;
      bias_head[s] = place.n * p.bias.stride_n;
      isolated[s] = isolated_frames(p, place.index[0]);
      seen[s] = seen_keys(p, place.index[0], 0);
    }
  }

  // Of neighbouring heads at one place.
  __device__ TileMask(const SequenceAttention& p, int index, int n) {
    const uint32_t alone = isolated_frames(p, index), there = seen_keys(p, index, 0);
#pragma unroll
    for (int s = 0; s < (S::kPaired ? 2 : 1); ++s) {
      bias_head[s] = (n + s) * p.bias.stride_n;
      isolated[s] = alone;
      seen[s] = there;
    }
  }

  // Bit j: query i sees key j.
  __device__ uint32_t keys_of(const SequenceAttention& p, int s, int i) const {
    const uint32_t own = 1u << i, others = isolated[s] & own ? 0 : ~isolated[s];
    return seen[s] & (own | others) & (p.causal ? own | (own - 1) : ~0u);
  }
};

// s = scale * s + bias
template <class S>
__device__ void add_bias(const SequenceAttention& p, const TileMask<S>& mask, Scores<S>& rS) {
  if (p.bias.data == nullptr) {
#pragma unroll
    for (int m = 0; m < S::kM; ++m) {
#pragma unroll
      for (int n = 0; n < S::kN; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) rS[m][n][e] *= p.scale;
      }
    }
  } else {
    const int end_query = ptx::opaque(int(p.L) - 1), end_key = ptx::opaque(int(p.S) - 1);
    int64_t query_at[S::kM][2], key_at[S::kN][2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int m = 0; m < S::kM; ++m) {
        const int i = Element<S>::query(m, 2 * half);
        query_at[m][half] = mask.bias_head[Element<S>::sequence(2 * half)] + p.bias.query.at(min(i, end_query));
      }
#pragma unroll
      for (int n = 0; n < S::kN; ++n) key_at[n][half] = p.bias.key.at(min(Element<S>::key(n, half), end_key));
    }
    with_entries(p.bias, [&](const auto* entries) {
#pragma unroll
      for (int m = 0; m < S::kM; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const auto* const row = entries + query_at[m][half];
#pragma unroll
          for (int n = 0; n < S::kN; ++n) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
              float& x = rS[m][n][2 * half + e];
              x = fmaf(x, p.scale, float(load_acc(row + key_at[n][e])));
            }
          }
        }
      }
    });
  }
}

// s = -inf where hidden
template <class S>
__device__ void hide_keys(const SequenceAttention& p, const TileMask<S>& mask, Scores<S>& rS) {
  const int last_query = int(p.L) - 1, last_key = int(p.S) - 1;
  if (last_query == S::kRows - 1 && last_key == S::kKeys - 1 && !p.causal && p.focus_present.data == nullptr &&
      p.key_mask.data == nullptr)
    return;
#pragma unroll
  for (int m = 0; m < S::kM; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = Element<S>::query(m, 2 * half);
      const uint32_t keys = i > last_query ? 0 : mask.keys_of(p, Element<S>::sequence(2 * half), i) >> Element<S>::key(0, 0);
#pragma unroll
      for (int n = 0; n < S::kN; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          if ((keys >> (8 * n + e) & 1) == 0) rS[m][n][2 * half + e] = -INFINITY;
        }
      }
    }
  }
}

// s = scale * s + bias, -inf where hidden
template <class S>
__device__ void mask_scores(const SequenceAttention& p, const TileMask<S>& mask, Scores<S>& rS) {
  add_bias(p, mask, rS);
  hide_keys(p, mask, rS);
}

// Of each of a lane's rows: what is subtracted from its scores, and the sum of the exponentials of what is left.
template <class S>
struct RowSums {
  float shift[S::kM][2], sum[S::kM][2];
};

// rS = softmax of its rows, zeros where all is hidden.
template <class S>
__device__ RowSums<S> softmax_rows(Scores<S>& rS) {
  RowSums<S> rows;
#pragma unroll
  for (int m = 0; m < S::kM; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float most = -INFINITY, sum = 0;
#pragma unroll
      for (int n = 0; n < S::kN; ++n) most = fmaxf(most, fmaxf(rS[m][n][2 * half], rS[m][n][2 * half + 1]));
      most = over_row(most, [](float a, float b) { return fmaxf(a, b); });
      const float shift = most == -INFINITY ? 0.0f : most;
#pragma unroll
      for (int n = 0; n < S::kN; ++n) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) sum += rS[m][n][e] = exp_above(rS[m][n][e], shift);
      }
      sum = over_row(sum, [](float a, float b) { return a + b; });
      const float inverse = sum == 0 ? 0.0f : ptx::reciprocal_approx(sum);
#pragma unroll
      for (int n = 0; n < S::kN; ++n) {
        rS[m][n][2 * half] *= inverse;
        rS[m][n][2 * half + 1] *= inverse;
      }
      rows.shift[m][half] = shift;
      rows.sum[m][half] = sum;
    }
  }
  return rows;
}

// Whether a lane's pair of columns from `column` on is below kD, which is a multiple of 8: the same for all lanes of a tile of 8.
template <int kD>
__device__ bool is_stored(int column) {
  return kD % kColumns == 0 || column - lane_id() % 4 * 2 < kD;
}

// out = softmax(mask(q k^T)) v of a tile, to where q was. mask(scores): scales and masks them; then(sums): before v is looked at.
// kD: D where it is known when this is compiled, beyond which nothing is stored; 0: of a tile whose columns are cleared each time.
template <class S, int kD, class T, class Mask, class Then>
__device__ void attend(
    const SharedTile<T>& sQ, const SharedTile<T>& sK, const SharedTile<T>& sV, float* scratch, int columns, const Mask& mask,
    const Then& then) {
  // (1) s = scale * q k^T + bias
  Scores<S> rP;
  scores<S>(rP, sQ, sK, columns);
  mask(rP);

  // (2) p = softmax(s)
  then(softmax_rows<S>(rP));

  // (3) out = p v
  const Weights<S, T> weights(rP, scratch);
  __syncwarp();
  for (int d = 0; d < columns; d += kColumns) {
    Chunk<S, false> rOut = {};
    weigh<false, S>(rOut, weights, sV.data + d, sQ.ld);
    for_each_pair(rOut, d, [&](int row, int column, float first, float second) {
      if (is_stored<kD>(column)) store_pair(sQ.row(row) + column, first, second);
    });
  }
  __syncwarp();
}

// at(s): where lse of the tile's sequence s lies, -1 where there is none.
template <class S, class At>
__device__ void store_lse(const SequenceAttentionFwd& p, const RowSums<S>& sums, const At& at) {
  if (p.lse.data == nullptr || lane_id() % 4 != 0) return;
#pragma unroll
  for (int m = 0; m < S::kM; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = Element<S>::query(m, 2 * half);
      const int64_t first = at(Element<S>::sequence(2 * half));
      if (i >= p.L || first < 0) continue;
      static_cast<float*>(p.lse.data)[first + p.lse.row.at(i)] = sums.shift[m][half] + logf(sums.sum[m][half]);
    }
  }
}

}  // namespace vdiff::attention
