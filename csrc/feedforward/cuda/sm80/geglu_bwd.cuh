// geglu backward.                                                              contract: params.h, GegluBackwardParams
//
//   da = grad gelu(b);  db = grad a (cdf(b) + b density(b)), a and b computed again: kept, they would be twice the result
//   dx = [da | db] weight;  dweight = [da | db]^T x;  dbias = sum of [da | db] over rows
//
// geglu_bwd_gates: [da | db], rounded to T, to the scratch, (M, 2, half)
//   grid, block, tile, smem as geglu_fwd; grad passes through shared memory as out does there
//   bytes  x, weight, bias and grad read, 2 E elements a row written; sums of each tile's 128 rows, unrounded, for dbias
//   flops  4 C E a row
//   acc    fp32
//
//   [a | b] = x weight^T                     (1)
//   da, db  = as above, of a + bias, b + bias                            (2)
//   a tile's sums of da and db over rows: a lane's, eight lanes', four warps' in order   (3)
//
// geglu_bwd_dx, geglu_bwd_dweight: products of what lies in the scratch, 128 x 128 a block
//   grid   (tiles * parts of k, 1, 1)         k is cut where there are few tiles, by the shape alone (product_plan)
//   bytes  [da | db], weight or x read, dx or dweight written; of parts 4 bytes each, written and read back
//   flops  4 C E a row, each                  operands that have a row for each k: ldmatrix.trans; float by single elements
//
// sum_parts (product_parts.cuh): the tiles' sums, and the parts of k, added up in order
//
//   limits M, C, 2E < 2^30, checked by run.cpp; offsets are 64-bit
#pragma once

#include "common/cuda/load.cuh"
#include "common/cuda/product_parts.cuh"
#include "feedforward/cuda/sm80/gated.cuh"
#include "feedforward/cuda/sm80/instantiations.h"

namespace vdiff::feedforward {

// ------------------------------------------------------------------------------------------------------------------- gates

template <class T>
struct GatedGradients {
  const T* grad;  // (M, E)
  int64_t stride_grad;
  int grad_bytes;   // of one copy
  T* dab;           // (M, 2, half)
  int half;
  float* sums;  // (tiles of rows, 2E), or null
};

template <class T, int kWide>
__global__ void __launch_bounds__(product::kThreads, product::kBlocks<kWide>)
    geglu_bwd_gates_kernel(Gated<T> p, GatedGradients<T> to) {
  extern __shared__ __align__(16) char shared_memory[];
  using Rows = product::WarpRows<T, product::kWarpColumns>;
  using GradRows = product::WarpRows<T, kHalfColumns>;
  static_assert(product::kWarps * (Rows::kBytes + GradRows::kBytes) <= product::kSharedBytes);

  // (1) [a | b] = x weight^T
  product::Accumulators rC = {};
  gated_product<kWide>(rC, shared_memory, p);

  // (2) da = grad gelu(b); db = grad a (cdf(b) + b density(b))
  const GatedPlace at(p.tiles);
  const int warp = threadIdx.x / kWarp;
  const Rows sDab(shared_memory + warp * Rows::kBytes);
  const GradRows sGrad(shared_memory + product::kWarps * Rows::kBytes + warp * GradRows::kBytes);
  float rSums[2][kHalfN][2] = {};  // of da, of db
#pragma unroll
  for (int m = 0; m < product::kM; ++m) {
    const int64_t row = at.row + 16 * m, rows = p.M - row;
    const T* const grads = to.grad + row * to.stride_grad + at.e;
    sGrad.load(product::MatrixRows<const T>{grads, to.stride_grad, rows}, p.E - at.e, to.grad_bytes);
    __syncwarp();
    for_each_gated(rC[m], p, at.e, [&](int n, int half, const float (&a)[2], const float (&b)[2]) {
      const int in_rows = product::row_of_pair(half), column = product::column_of_pair(n);
      const T* const grad = sGrad.pair(in_rows, column);
      float da[2], db[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float g = load_acc(grad + i), below = cdf(b[i]);
        da[i] = g * b[i] * below;
        db[i] = g * a[i] * fmaf(b[i], density(b[i]), below);
        rSums[0][n][i] += da[i];
        rSums[1][n][i] += db[i];
      }
      store_pair(sDab.pair(in_rows, column), da[0], da[1]);
      store_pair(sDab.pair(in_rows, kHalfColumns + column), db[0], db[1]);
    });
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      T* const first = to.dab + (2 * row + i) * to.half + at.e;
      const product::MatrixRows<T> dab = {first, 2 * int64_t(to.half), rows};
      sDab.template store<kHalfColumns>(dab, to.half - at.e, 16, i * kHalfColumns);
    }
    __syncwarp();
  }
  if (to.sums == nullptr) return;

  // (3) a tile's sums of da and db over rows
  __syncthreads();
  float* const sSums = reinterpret_cast<float*>(shared_memory);  // (kWarpsDown, kTileColumns)
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int n = 0; n < kHalfN; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float sum = rSums[i][n][j];
#pragma unroll
        for (int lanes = 4; lanes < kWarp; lanes *= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
        const int column = product::warp_column() + i * kHalfColumns + product::column_of_pair(n) + j;
        if (lane_id() < 4) sSums[warp % product::kWarpsDown * product::kTileColumns + column] = sum;
      }
    }
  }
  __syncthreads();
  if (threadIdx.x >= product::kTileColumns) return;
  const int column = threadIdx.x;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < product::kWarpsDown; ++i) sum += sSums[i * product::kTileColumns + column];
  const int e = at.tile.across * kGatedColumns + column / product::kWarpColumns * kHalfColumns + column % kHalfColumns;
  if (e < p.E) to.sums[(2 * int64_t(at.tile.down) + column / kHalfColumns % 2) * p.E + e] = sum;
}

// ---------------------------------------------------------------------------------------------------------------- products

// Of [da | db], which lies at `half` columns each, the E that the weight has.
struct Halves {
  int half, E;

  __device__ int row(int column) const { return column < half ? column : column - half + E; }  // of the weight
  __device__ bool there(int column) const { return (column < half ? column : column - half) < E; }
};

// The weight as an operand that has a row for each k, a column of [da | db]: a chunk of them is of da alone, or of db.
template <class T>
struct WeightOfK {
  static constexpr bool kAlongK = false;
  const T* data;
  int64_t stride;
  int first;  // k
  Halves halves;
  int columns, bytes;

  using Row = int;
  __device__ Row row(int i) const { return i; }
  __device__ product::Source<T> at(Row i, int column, int k) const {
    const bool is_b = first + k >= halves.half;
    const int e = first + k - (is_b ? halves.half : 0) + i;
    return {data + ((is_b ? halves.E : 0) + e) * stride + column, e < halves.E && column < columns};
  }
};

// What the kernels of both products are told.
template <class T>
struct GradientProduct {
  const T* dab;    // (M, 2, half)
  const T* other;  // weight, or x
  int64_t M;
  Halves halves;
  int64_t stride_other;
  int other_bytes;       // of one copy
  product::Parts<T> to;  // (M, C), or (2E, C)
};

template <class T, int kWide>
__global__ void __launch_bounds__(product::kThreads, product::kBlocks<kWide>) geglu_bwd_dx_kernel(GradientProduct<T> p) {
  extern __shared__ __align__(16) char shared_memory[];
  const int width = 2 * p.halves.half;
  product::Accumulators rC = {};
  {
    const product::PartPlace at(p.to, blockIdx.x);
    const product::RowsAlongK<T> dab = {p.dab + at.row * width + at.first, width, p.M - at.row, at.K, 16};
    const WeightOfK<T> weight = {
        p.other + at.column, p.stride_other, int(at.first), p.halves, p.to.columns - at.column, p.other_bytes};
    product::tile_product<T, kWide>(rC, shared_memory, dab, weight, product::chunks_of<T>(at.K));
  }
  product::finish();
  const product::PartPlace at(p.to, ptx::opaque(blockIdx.x));
  product::store_part(rC, shared_memory, p.to, at, [=](int64_t row) { return row < p.M ? row : -1; });
}

template <class T, int kWide>
__global__ void __launch_bounds__(product::kThreads, product::kBlocks<kWide>) geglu_bwd_dweight_kernel(GradientProduct<T> p) {
  extern __shared__ __align__(16) char shared_memory[];
  const int width = 2 * p.halves.half;
  product::Accumulators rC = {};
  {
    const product::PartPlace at(p.to, blockIdx.x);
    const product::RowsOfK<T> dab = {p.dab + at.first * width + at.row, width, width - int(at.row), at.K, 16};
    const product::RowsOfK<T> x = {
        p.other + at.first * p.stride_other + at.column, p.stride_other, p.to.columns - at.column, at.K, p.other_bytes};
    product::tile_product<T, kWide>(rC, shared_memory, dab, x, product::chunks_of<T>(at.K));
  }
  product::finish();
  const product::PartPlace at(p.to, ptx::opaque(blockIdx.x));
  product::store_part(rC, shared_memory, p.to, at, [=](int64_t column) {
    const bool there = column < width && p.halves.there(int(column));
    return there ? int64_t(p.halves.row(int(column))) : -1;
  });
}

// ------------------------------------------------------------------------------------------------------------------- launch

template <class T>
void launch_bwd(const GegluBackwardParams& p, const GegluBwdPlan& plan, void* scratch, cudaStream_t stream) {
  auto* const dab = static_cast<T*>(scratch);
  auto* const parts = reinterpret_cast<float*>(static_cast<char*>(scratch) + plan.dab_bytes);
  const auto width = [](const void* rows, int64_t count, int64_t stride, int64_t columns) {
    return product::copy_bytes(rows, count, stride, columns, sizeof(T));
  };

  const GatedGradients<T> gradients = {
      static_cast<const T*>(p.grad), p.stride_grad, width(p.grad, p.M, p.stride_grad, p.E), dab, int(plan.half),
      p.dbias == nullptr ? nullptr : parts};
  const Gated<T> gated = gated_of<T>(p, plan.tiles);
  product::dispatch_width(gated.is_wide(), [&](auto wide) {
    launch("geglu_bwd_gates_kernel", geglu_bwd_gates_kernel<T, decltype(wide)::value>, plan.gates, stream, gated, gradients);
  });
  product::launch_sum<float>(plan.dbias, parts, p.dbias, stream);

  const auto product_of = [&](const ProductPlan& cut, const void* other, int64_t count, int64_t stride, void* to, int64_t rows) {
    const product::Parts<T> result = product::parts_of<T>(cut, to, parts, rows, p.C);
    const Halves halves = {int(plan.half), int(p.E)};
    return GradientProduct<T>{
        dab, static_cast<const T*>(other), p.M, halves, stride, width(other, count, stride, p.C), result};
  };
  const GradientProduct<T> dx = product_of(plan.dx, p.weight, 2 * p.E, p.stride_weight_e, p.dx, p.M);
  product::dispatch_width(dx.other_bytes == 16, [&](auto wide) {
    launch("geglu_bwd_dx_kernel", geglu_bwd_dx_kernel<T, decltype(wide)::value>, plan.dx.shape, stream, dx);
  });
  product::launch_sum<T>(plan.dx.sum, parts, p.dx, stream);
  const GradientProduct<T> dweight = product_of(plan.dweight, p.x, p.M, p.stride_x, p.dweight, 2 * p.E);
  product::dispatch_width(dweight.other_bytes == 16, [&](auto wide) {
    launch("geglu_bwd_dweight_kernel", geglu_bwd_dweight_kernel<T, decltype(wide)::value>, plan.dweight.shape, stream, dweight);
  });
  product::launch_sum<T>(plan.dweight.sum, parts, p.dweight, stream);
}

}  // namespace vdiff::feedforward
