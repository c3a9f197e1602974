// [a | b] = x weight^T + bias, a block's tile of it: what forward and backward of geglu share. The tile's 128 columns are 64 of a
// and the same 64 of b, 32 of each a warp's, so that a lane holds a and b of the same places and x's tile is read once for both.
#pragma once

#include "common/cuda/launch.cuh"
#include "common/cuda/tile_product.cuh"
#include "feedforward/cuda/plan.h"

namespace vdiff::feedforward {

// What a kernel is told of the product; of `bytes`, what one copy may move.
template <class T>
struct Gated {
  const T* x;
  const T* weight;
  const float* bias;  // or null
  int64_t M, C, E;
  int64_t stride_x, stride_weight;
  int x_bytes, weight_bytes;
  TileGrid tiles;
};

template <class T, class Params>
Gated<T> gated_of(const Params& p, const TileGrid& tiles) {
  const int x_bytes = product::copy_bytes(p.x, p.M, p.stride_x, p.C, sizeof(T));
  const int weight_bytes = product::copy_bytes(p.weight, 2 * p.E, p.stride_weight_e, p.C, sizeof(T));
  return {static_cast<const T*>(p.x), static_cast<const T*>(p.weight), static_cast<const float*>(p.bias), p.M, p.C, p.E, p.stride_x,
          p.stride_weight_e, x_bytes, weight_bytes, tiles};
}

// The rows of the weight that stand in the columns of a tile which begins at e.
template <class T>
struct GatedWeight {
  static constexpr bool kAlongK = true;
  const T* data;
  int64_t stride, e, E;
  int C, bytes;

  using Row = product::Source<T>;
  __device__ Row row(int i) const {
    const int64_t column = e + i / product::kWarpColumns * kHalfColumns + i % kHalfColumns;
    return {data + (i / kHalfColumns % 2 * E + column) * stride, column < E};
  }
  __device__ product::Source<T> at(const Row& row, int column, int k) const {
    return {row.data + (k + column), row.there && k + column < C};
  }
};

// Where a warp's part of the block's tile begins.
struct GatedPlace {
  int64_t tile, row, e;  // tile: of rows

  __device__ explicit GatedPlace(const TileGrid::Place& place)
      : tile(place.down),
        row(place.down * product::kTileRows + product::warp_row()),
        e(place.across * kGatedColumns + product::warp_column() / 2) {}
};

// rC = x weight^T, of the warp's 64 columns 32 of a and 32 of b.
template <class T>
__device__ void gated_product(product::Accumulators& rC, char* shared, const Gated<T>& p, const TileGrid::Place& place) {
  const int64_t row = place.down * product::kTileRows;
  const product::RowsAlongK<T> x = {p.x + row * p.stride_x, p.stride_x, p.M - row, int(p.C), p.x_bytes};
  const GatedWeight<T> weight = {p.weight, p.stride_weight, place.across * kGatedColumns, p.E, int(p.C), p.weight_bytes};
  product::tile_product<T>(rC, shared, x, weight, int((p.C + product::kChunk<T> - 1) / product::kChunk<T>));
  ptx::copy_wait<0>();
  __syncthreads();  // from here on the stages' memory is the epilogue's
}

// body(row of the 16, column of the warp's 32, a, b): the lane's pairs of both, with their bias.
template <class T, class Body>
__device__ void for_each_gated(const float (&rC)[product::kN][4], const Gated<T>& p, int64_t e, const Body& body) {
  constexpr int kHalf = product::kN / 2;
#pragma unroll
  for (int n = 0; n < kHalf; ++n) {
    const int column = 8 * n + lane_id() % 4 * 2;
    float bias_a[2] = {0, 0}, bias_b[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (p.bias == nullptr || e + column + i >= p.E) continue;
      bias_a[i] = p.bias[e + column + i];
      bias_b[i] = p.bias[p.E + e + column + i];
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float a[2] = {rC[n][2 * half] + bias_a[0], rC[n][2 * half + 1] + bias_a[1]};
      const float b[2] = {rC[kHalf + n][2 * half] + bias_b[0], rC[kHalf + n][2 * half + 1] + bias_b[1]};
      body(lane_id() / 4 + 8 * half, column, a, b);
    }
  }
}

// Of the normal distribution.
__device__ inline float cdf(float b) { return fmaf(0.5f, erff(b * 0.70710678118654752f), 0.5f); }
__device__ inline float density(float b) { return 0.39894228040143268f * expf(-0.5f * b * b); }

}  // namespace vdiff::feedforward
