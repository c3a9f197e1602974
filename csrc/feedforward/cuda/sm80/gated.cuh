// [a | b] = x weight^T + bias, a block's tile of it: what forward and backward of geglu share. The tile's 128 columns are 64 of a
// and the same 64 of b, 32 of each a warp's, so that a lane holds a and b of the same places and x's tile is read once for both.
#pragma once

#include "common/cuda/launch.cuh"
#include "common/cuda/tile_product.cuh"
#include "feedforward/cuda/plan.h"

namespace vdiff::feedforward {

constexpr int kHalfN = product::kN / 2;  // tiles of 8 columns of a warp, of a and of b

// What a kernel is told of the product; of `bytes`, what one copy may move.
template <class T>
struct Gated {
  const T* x;
  const T* weight;
  const float* bias;  // or null
  int64_t M;
  int C, E;
  int64_t stride_x, stride_weight;
  int x_bytes, weight_bytes;
  TileGrid tiles;

  bool is_wide() const { return x_bytes == 16 && weight_bytes == 16; }
};

template <class T, class Params>
Gated<T> gated_of(const Params& p, const TileGrid& tiles) {
  const int x_bytes = product::copy_bytes(p.x, p.M, p.stride_x, p.C, sizeof(T));
  const int weight_bytes = product::copy_bytes(p.weight, 2 * p.E, p.stride_weight_e, p.C, sizeof(T));
  return {static_cast<const T*>(p.x), static_cast<const T*>(p.weight), static_cast<const float*>(p.bias), p.M, int(p.C), int(p.E),
          p.stride_x, p.stride_weight_e, x_bytes, weight_bytes, tiles};
}

// The rows of the weight that stand in the columns of a tile which begins at e.
template <class T>
struct GatedWeight {
  static constexpr bool kAlongK = true;
  const T* data;
  int64_t stride;
  int e, E, C, bytes;

  using Row = product::Source<T>;
  __device__ Row row(int i) const {
    const int column = e + i / product::kWarpColumns * kHalfColumns + i % kHalfColumns;
    return {data + (i / kHalfColumns % 2 * E + column) * stride, column < E};
  }
  __device__ product::Source<T> at(const Row& row, int column, int k) const {
    return {row.data + (k + column), row.there && k + column < C};
  }
};

// Where a warp's part of the block's tile begins. Found again after the product, which has no register to keep it in.
struct GatedPlace {
  TileGrid::Place tile;
  int64_t row;
  int e;

  __device__ explicit GatedPlace(const TileGrid& tiles)
      : tile(tiles.place(ptx::opaque(blockIdx.x))),
        row(int64_t(tile.down) * product::kTileRows + product::warp_row()),
        e(tile.across * kGatedColumns + product::warp_column() / 2) {}
};

// rC = x weight^T, of the warp's 64 columns 32 of a and 32 of b.
template <bool kWide, class T>
__device__ void gated_product(product::Accumulators& rC, char* shared, const Gated<T>& p) {
  const TileGrid::Place place = p.tiles.place(blockIdx.x);
  const int64_t row = int64_t(place.down) * product::kTileRows;
  const product::RowsAlongK<T> x = {p.x + row * p.stride_x, p.stride_x, p.M - row, p.C, p.x_bytes};
  const GatedWeight<T> weight = {p.weight, p.stride_weight, place.across * kGatedColumns, p.E, p.C, p.weight_bytes};
  product::tile_product<T, kWide>(rC, shared, x, weight, product::chunks_of<T>(p.C));
  product::finish();
}

// body(n, half, a, b): the lane's pairs of both, with their bias, of tile n of the 4 of each.
template <class T, class Body>
__device__ void for_each_gated(const float (&rC)[product::kN][4], const Gated<T>& p, int e, const Body& body) {
#pragma unroll
  for (int n = 0; n < kHalfN; ++n) {
    float bias_a[2] = {0, 0}, bias_b[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int at = e + product::column_of_pair(n) + i;
      if (p.bias == nullptr || at >= p.E) continue;
      bias_a[i] = p.bias[at];
      bias_b[i] = p.bias[p.E + at];
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float a[2] = {rC[n][2 * half] + bias_a[0], rC[n][2 * half + 1] + bias_a[1]};
      const float b[2] = {rC[kHalfN + n][2 * half] + bias_b[0], rC[kHalfN + n][2 * half + 1] + bias_b[1]};
      body(n, half, a, b);
    }
  }
}

// Of the normal distribution.
__device__ inline float cdf(float b) { return fmaf(0.5f, erff(b * 0.70710678118654752f), 0.5f); }
__device__ inline float density(float b) { return 0.39894228040143268f * expf(-0.5f * b * b); }

}  // namespace vdiff::feedforward
