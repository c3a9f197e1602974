// The two matrix products of attention, scores and what they weigh, of a warp: on tensor cores for half types, by FFMA for float.
//
// Results live in tiles of 16 x 8: with g = lane / 4, t = lane % 4, a lane holds elements (g, 2t), (g, 2t+1), (g+8, 2t), (g+8,
// 2t+1). Paired: two sequences of up to 8 rows share one tile, rows 0 to 7 and 8 to 15, and neither's values reach the other's.
#pragma once

#include "common/cuda/ptx.cuh"
#include "common/cuda/shared_tile.h"
#include "common/cuda/team.cuh"

namespace vdiff {

template <class S>
using Scores = float[S::kM][S::kN][4];

// Where the lane's element e of a tile (m, n) stands.
template <class S>
struct Element {
  __device__ static int query(int m, int e) { return S::kPaired ? lane_id() / 4 : 16 * m + lane_id() / 4 + e / 2 * 8; }
  __device__ static int key(int n, int e) { return 8 * n + lane_id() % 4 * 2 + e % 2; }
  __device__ static int sequence(int e) { return S::kPaired ? e / 2 : 0; }  // of the pair
};

// -------------------------------------------------------------------------------------------------------------- a b^T

// rC = a b^T: 16 rows of a, 8 kN rows of b, both `columns` (a multiple of 16) wide.
template <int kN, class T>
__device__ void rows_by_rows(float (&rC)[kN][4], const T* sA, const T* sB, int ld, int columns) {
  const int r = lane_id() % 8, matrix = lane_id() / 8;
  uint32_t a = ptx::shared_address(sA + (r + matrix % 2 * 8) * ld + matrix / 2 * 8);
  uint32_t b = ptx::shared_address(sB + (r + matrix / 2 * 8) * ld + matrix % 2 * 8);
  const uint32_t next = 16 * ld * uint32_t(sizeof(T));  // two tiles of b
#pragma unroll
  for (int n = 0; n < kN; ++n) rC[n][0] = rC[n][1] = rC[n][2] = rC[n][3] = 0;
  for (int d = 0; d < columns; d += 16, a += 16 * sizeof(T), b += 16 * sizeof(T)) {
    uint32_t rA[4];
    ptx::load_matrices(rA, a);
#pragma unroll
    for (int n = 0; n < kN; n += 2) {
      uint32_t rB[4];
      ptx::load_matrices(rB, b + n / 2 * next);
      ptx::multiply<T>(rC[n], rA, rB[0], rB[1]);
      ptx::multiply<T>(rC[n + 1], rA, rB[2], rB[3]);
    }
  }
}

// The left operands of products of 16 rows, a fragment for each 16 columns, which a warp keeps.
template <int kAllColumns>
using Fragments = uint32_t[kAllColumns / kColumns][4];

template <int kChunks, class T>
__device__ void load_fragments(uint32_t (&rA)[kChunks][4], const SharedTile<T>& sA, int columns) {
  const int r = lane_id() % 8, matrix = lane_id() / 8;
  const uint32_t a = ptx::shared_address(sA.row(r + matrix % 2 * 8) + matrix / 2 * 8);
  __syncwarp();
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (c * kColumns < columns) ptx::load_matrices(rA[c], a + c * kColumns * uint32_t(sizeof(T)));
  }
}

// rC = a b^T of fragments. There are `columns`, at least kLeast. Synchronises the warp first, as scores does.
template <int kLeast, int kN, int kChunks, class T>
__device__ void fragments_by_rows(
    float (&rC)[kN][4], const uint32_t (&rA)[kChunks][4], const SharedTile<T>& sB, int columns) {
  const int r = lane_id() % 8, matrix = lane_id() / 8;
  const uint32_t b = ptx::shared_address(sB.row(r + matrix / 2 * 8) + matrix % 2 * 8);
  __syncwarp();
#pragma unroll
  for (int n = 0; n < kN; ++n) rC[n][0] = rC[n][1] = rC[n][2] = rC[n][3] = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (c * kColumns >= kLeast && c * kColumns >= columns) continue;
#pragma unroll
    for (int n = 0; n < kN; n += 2) {
      uint32_t rB[4];
      ptx::load_matrices(rB, b + uint32_t((n * 8 * sB.ld + c * kColumns) * sizeof(T)));
      ptx::multiply<T>(rC[n], rA[c], rB[0], rB[1]);
      ptx::multiply<T>(rC[n + 1], rA[c], rB[2], rB[3]);
    }
  }
}

// Four products are summed by themselves: a chain of D additions would lose more than eager PyTorch's does.
__device__ inline float dot(float4 a, float4 b) { return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, a.x * b.x))); }

template <int kN>
__device__ void rows_by_rows(float (&rC)[kN][4], const float* sA, const float* sB, int ld, int columns) {
  const auto four = [](const float* x) { return *reinterpret_cast<const float4*>(x); };
  const float* a = sA + lane_id() / 4 * ld;
  const float* b = sB + lane_id() % 4 * 2 * ld;
#pragma unroll
  for (int n = 0; n < kN; ++n) rC[n][0] = rC[n][1] = rC[n][2] = rC[n][3] = 0;
  for (int d = 0; d < columns; d += 4) {
    const float4 a0 = four(a + d), a1 = four(a + 8 * ld + d);
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const float4 b0 = four(b + n * 8 * ld + d), b1 = four(b + (n * 8 + 1) * ld + d);
      rC[n][0] += dot(a0, b0);
      rC[n][1] += dot(a0, b1);
      rC[n][2] += dot(a1, b0);
      rC[n][3] += dot(a1, b1);
    }
  }
}

// All of the scores of a tile of rows of a and of b. Synchronises the warp first, whose lanes copies and masks may have parted:
// ldmatrix and mma must be reached by all of them together.
template <class S, class T>
__device__ void scores(Scores<S>& rC, const SharedTile<T>& sA, const SharedTile<T>& sB, int columns) {
  __syncwarp();
  if constexpr (S::kPaired) {
    // Tile 0 is 16 rows by the first sequence's keys, tile 1 by the second's: half of each is of use.
    float rBoth[2][4];
    rows_by_rows(rBoth, sA.data, sB.data, sA.ld, columns);
    rC[0][0][0] = rBoth[0][0];
    rC[0][0][1] = rBoth[0][1];
    rC[0][0][2] = rBoth[1][2];
    rC[0][0][3] = rBoth[1][3];
  } else {
#pragma unroll
    for (int m = 0; m < S::kM; ++m) rows_by_rows(rC[m], sA.row(16 * m), sB.data, sA.ld, columns);
  }
}

// ---------------------------------------------------------------------------------------------------- weights by rows

// Scores as the left operand of a product, in T: as they are, or transposed.
template <class S, class T>
struct Weights {
  uint32_t r[S::kM][S::kN][2];

  __device__ Weights(const Scores<S>& scores, float*) {
#pragma unroll
    for (int m = 0; m < S::kM; ++m) {
#pragma unroll
      for (int n = 0; n < S::kN; ++n) {
        r[m][n][0] = ptx::pack<T>(scores[m][n][0], scores[m][n][1]);
        r[m][n][1] = ptx::pack<T>(scores[m][n][2], scores[m][n][3]);
      }
    }
  }

  // 16 rows m by 16 columns k of the weights, or of the weights transposed.
  template <bool kTransposed>
  __device__ void fragment(uint32_t (&a)[4], int m, int k) const {
    if constexpr (kTransposed) {
      a[0] = ptx::transposed(r[k][2 * m][0]);
      a[1] = ptx::transposed(r[k][2 * m + 1][0]);
      a[2] = ptx::transposed(r[k][2 * m][1]);
      a[3] = ptx::transposed(r[k][2 * m + 1][1]);
    } else {
      a[0] = r[m][2 * k][0];
      a[1] = r[m][2 * k][1];
      a[2] = r[m][2 * k + 1][0];
      a[3] = r[m][2 * k + 1][1];
    }
  }
};

template <class S>
struct Weights<S, float> {
  static constexpr int kLd = kWeightsLd<S>;
  const float* data;

  // scratch: kWeightsFloats<S, float> of the warp's own; the warp must synchronise before the weights are used.
  __device__ Weights(const Scores<S>& scores, float* scratch) : data(scratch) {
    const int g = lane_id() / 4;
#pragma unroll
    for (int m = 0; m < S::kM; ++m) {
#pragma unroll
      for (int n = 0; n < S::kN; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) scratch[(16 * m + g + e / 2 * 8) * kLd + Element<S>::key(n, e)] = scores[m][n][e];
      }
    }
  }

  template <bool kTransposed>
  __device__ float at(int row, int column) const {
    return kTransposed ? data[column * kLd + row] : data[row * kLd + column];
  }
};

template <class S, bool kTransposed>
constexpr int kOutTiles = kTransposed ? S::kN / 2 : S::kM;  // tiles of 16 rows of a product

// A result of 16 columns: two tiles of 8 for each 16 rows.
template <class S, bool kTransposed>
using Chunk = float[S::kPaired ? 1 : kOutTiles<S, kTransposed>][2][4];

// rC += w b, or w^T b: 16 columns of the rows of b, from sB on.
template <bool kTransposed, class S, class T>
__device__ void weigh(Chunk<S, kTransposed>& rC, const Weights<S, T>& w, const T* sB, int ld) {
  const int r = lane_id() % 8, matrix = lane_id() / 8;
  const uint32_t b = ptx::shared_address(sB + (r + matrix % 2 * 8) * ld + matrix / 2 * 8);
  uint32_t rB[4];
  if constexpr (S::kPaired) {
    // A product for each sequence's rows of b: the first's gives rows 0 to 7, the second's 8 to 15.
    uint32_t a[2];
    for (int i = 0; i < 2; ++i) a[i] = kTransposed ? ptx::transposed(w.r[0][0][i]) : w.r[0][0][i];
    ptx::load_matrices_transposed(rB, b);
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      float other[4] = {0, 0, rC[0][n][2], rC[0][n][3]};
      ptx::multiply<T>(rC[0][n], a, rB[2 * n]);
      ptx::multiply<T>(other, a, rB[2 * n + 1]);
      rC[0][n][2] = other[2];
      rC[0][n][3] = other[3];
    }
  } else {
#pragma unroll
    for (int k = 0; k < (kTransposed ? S::kM : S::kN / 2); ++k) {
      ptx::load_matrices_transposed(rB, b + k * 16 * ld * uint32_t(sizeof(T)));
#pragma unroll
      for (int m = 0; m < kOutTiles<S, kTransposed>; ++m) {
        uint32_t a[4];
        w.template fragment<kTransposed>(a, m, k);
        ptx::multiply<T>(rC[m][0], a, rB[0], rB[1]);
        ptx::multiply<T>(rC[m][1], a, rB[2], rB[3]);
      }
    }
  }
}

template <bool kTransposed, class S>
__device__ void weigh(Chunk<S, kTransposed>& rC, const Weights<S, float>& w, const float* sB, int ld) {
  const auto two = [](const float* x) { return *reinterpret_cast<const float2*>(x); };
  const int g = lane_id() / 4;
  const float* b = sB + lane_id() % 4 * 2;
  constexpr int kRows = S::kPaired ? 8 : kTransposed ? S::kM * 16 : S::kN * 8;  // of b
#pragma unroll 2
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const float2 b0 = two(b + i * ld + 8 * n);
      const float2 b1 = S::kPaired ? two(b + (i + 8) * ld + 8 * n) : b0;
#pragma unroll
      for (int m = 0; m < (S::kPaired ? 1 : kOutTiles<S, kTransposed>); ++m) {
        const int row = 16 * m + g;
        const float a0 = w.template at<kTransposed>(row, i);
        // Of a pair, the second sequence's weights stand in rows 8 to 15.
        const float a1 = S::kPaired ? (kTransposed ? w.data[(8 + i) * w.kLd + g] : w.data[(8 + g) * w.kLd + i])
                                    : w.template at<kTransposed>(row + 8, i);
        rC[m][n][0] = fmaf(a0, b0.x, rC[m][n][0]);
        rC[m][n][1] = fmaf(a0, b0.y, rC[m][n][1]);
        rC[m][n][2] = fmaf(a1, b1.x, rC[m][n][2]);
        rC[m][n][3] = fmaf(a1, b1.y, rC[m][n][3]);
      }
    }
  }
}

// body(row of the tile, column, first, second): the lane's pairs of a chunk of 16 columns.
template <int kTiles, class Body>
__device__ void for_each_pair(const float (&rC)[kTiles][2][4], int column, const Body& body) {
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = 16 * m + lane_id() / 4 + half * 8;
        body(row, column + 8 * n + lane_id() % 4 * 2, rC[m][n][2 * half], rC[m][n][2 * half + 1]);
      }
    }
  }
}

}  // namespace vdiff
