// A product of which a block has a tile and a part of k, as product_plan.h cuts it: where that is, where its sums go, and how the
// parts are added up.
//
// sum_parts: the parts of k, or other tables of sums, added up in order: bit-equal in every run
//   grid   (ceil(entries / (256 / slices)), 1, 1)   a thread an entry and slice of the tables
//   bytes  4 an entry of each table read, the sums written once, as T
#pragma once

#include <type_traits>

#include "common/cuda/launch.cuh"
#include "common/cuda/product_plan.h"
#include "common/cuda/tile_product.cuh"

namespace vdiff::product {

// The result of a product: the tiles and parts of its plan, and where they go.
template <class T>
struct Parts {
  T* out;        // (rows, columns)
  float* parts;  // the same for each part of k; null where there is but one
  int64_t rows;
  int columns;
  int out_bytes, parts_bytes;  // of one copy
  TileGrid tiles;
  int64_t part, span;
  int parts_of_span;
};

// parts: of the scratch.
template <class T>
Parts<T> parts_of(const ProductPlan& plan, void* out, float* parts, int64_t rows, int64_t columns) {
  return {static_cast<T*>(out), plan.sum.shape.blocks == 0 ? nullptr : parts, rows, int(columns),
          copy_bytes(out, 2, columns, columns, sizeof(T)), columns % 4 == 0 ? 16 : 4, plan.tiles, plan.part, plan.span,
          plan.parts_of_span};
}

// Where a block's tile begins, and its k.
struct PartPlace {
  int number;  // of the part
  int64_t row, first;
  int column, K;

  template <class T>
  __device__ PartPlace(const Parts<T>& p, int block) : number(block / int(p.tiles.count())) {
    const TileGrid::Place place = p.tiles.place(block - number * int(p.tiles.count()));
    row = int64_t(place.down) * kTileRows;
    column = place.across * kTileColumns;
    const int of_span = number % p.parts_of_span;
    first = number / p.parts_of_span * p.span + of_span * p.part;
    K = int(min(p.part, p.span - of_span * p.part));
  }
};

// rC, the tile at a place, to rows of out, or of its part. row_of(i): which of those row i of the product is; -1: none.
template <class T, class RowOf>
__device__ void store_part(
    const Accumulators& rC, char* shared, const Parts<T>& p, const PartPlace& at, const RowOf& row_of) {
  const auto rows_at = [&](auto* first) {
    return [=](int i) {
      const int64_t row = row_of(at.row + i);
      return typename MatrixRows<std::remove_pointer_t<decltype(first)>>::Row{first + row * p.columns, row >= 0};
    };
  };
  const int column = at.column + warp_column(), columns = p.columns - column;
  if (p.parts == nullptr) {
    store_product<T>(rC, shared, rows_at(p.out + column), columns, p.out_bytes);
  } else {
    store_product<float>(rC, shared, rows_at(p.parts + at.number * p.rows * p.columns + column), columns, p.parts_bytes);
  }
}

template <class T>
__global__ void __launch_bounds__(kSumThreads) sum_parts_kernel(const float* parts, T* sums, SumPlan plan) {
  __shared__ float shared[kSumThreads];
  const int width = kSumThreads / plan.slices, slice = threadIdx.x / width;
  const int64_t entry = int64_t(blockIdx.x) * width + threadIdx.x % width;
  float sum = 0;
  if (entry < plan.entries) {
    for (int64_t i = slice; i < plan.tables; i += plan.slices) sum += parts[i * plan.entries + entry];
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (slice > 0 || entry >= plan.entries) return;
  for (int i = 1; i < plan.slices; ++i) sum += shared[i * width + threadIdx.x];
  store_acc(sums + entry, sum);
}

template <class T>
void launch_sum(const SumPlan& plan, const float* parts, void* sums, cudaStream_t stream) {
  launch("sum_parts_kernel", sum_parts_kernel<T>, plan.shape, stream, parts, static_cast<T*>(sums), plan);
}

}  // namespace vdiff::product
