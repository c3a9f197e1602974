// norm_linear: out = gate * (h weight^T + bias) + residual, h = norm(x) + pos_emb.     contract: params.h, NormLinearParams
//
//   grid   (ceil(M / 128) * ceil(Co / 128), 1, 1)   x alone; groups of 8 tiles of rows before the next columns (TileGrid)
//   block  256 threads                        tile_product.cuh: 32 x 64 a warp
//   tile   128 pixels x 128 outputs; C by 32, float by 16, in 3 stages
//   smem   48 KiB; x becomes h where it lies; then each warp's part is what its rows of residual and out pass through
//   bytes  x, weight, bias, gate and residual read, out written; of the norm 12 a channel and frame, and 8 a pixel. Before, x
//          once more, for the moments of pixels (norm_numbers.cuh) or the statistics of a group norm (channel_stats)
//   flops  2 C Co a pixel, and for each tile of outputs 3 an element of x to normalise it
//   acc    fp32; float by three products of tf32; h is rounded to T
//   limits M, C, Co < 2^30, checked by run.cpp, and C of a layer or rms norm; offsets are 64-bit
//
//   y = h weight^T                           (1)  h = (x - mean) rstd mul + add, of what is there; the rest is zeros
//   out = gate (y + bias) + residual         (2)
#pragma once

#include "linear/cuda/sm80/instantiations.h"
#include "linear/cuda/sm80/numbers.cuh"

namespace vdiff::linear {

template <class T>
struct Projection {
  const T* x;
  const T* weight;
  const float* bias;  // or null, like the next two
  const float* gate;
  const T* residual;
  T* out;
  Numbers norm;
  Divisor pixels;  // of a clip
  int M, C, Co;
  int64_t stride_x, stride_weight, stride_residual;
  int x_bytes, weight_bytes, residual_bytes, out_bytes;  // of one copy
  TileGrid tiles;
};

template <class T, int kWide, int kOf>
__global__ void __launch_bounds__(product::kThreads, product::kBlocks<kWide>) norm_linear_fwd_kernel(Projection<T> p) {
  extern __shared__ __align__(16) char shared_memory[];
  using Rows = product::WarpRows<T, product::kWarpColumns>;

  // (1) y = h weight^T
  product::Accumulators rC = {};
  {
    const TileGrid::Place place = p.tiles.place(blockIdx.x);
    const int row = place.down * product::kTileRows, column = place.across * product::kTileColumns;
    const product::RowsAlongK<T> x = {p.x + row * p.stride_x, p.stride_x, p.M - row, p.C, p.x_bytes};
    const product::RowsAlongK<T> weight = {
        p.weight + column * p.stride_weight, p.stride_weight, p.Co - column, p.C, p.weight_bytes};
    const int chunks = product::chunks_of<T>(p.C);
    if constexpr (kOf != kNothing) {
      const product::Changed<product::RowsAlongK<T>, Normalised<T, kOf>> h = {{x}, {p.norm}, row, 0};
      product::tile_product<T, kWide>(rC, shared_memory, h, weight, chunks);
    } else {
      product::tile_product<T, kWide>(rC, shared_memory, x, weight, chunks);
    }
  }
  product::finish();

  // (2) out = gate (y + bias) + residual
  const TileGrid::Place place = p.tiles.place(ptx::opaque(blockIdx.x));
  const int column = place.across * product::kTileColumns + product::warp_column(), columns = p.Co - column;
  const Rows sOut(shared_memory + threadIdx.x / kWarp * Rows::kBytes);
#pragma unroll
  for (int m = 0; m < product::kM; ++m) {
    const int row = place.down * product::kTileRows + product::warp_row() + 16 * m;
    if (p.residual != nullptr) {
      const T* const first = p.residual + row * p.stride_residual + column;
      sOut.load(product::MatrixRows<const T>{first, p.stride_residual, p.M - row}, columns, p.residual_bytes);
      __syncwarp();
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int in_rows = product::row_of_pair(half);
      const float* const gate =
          p.gate == nullptr ? nullptr : p.gate + int64_t(p.pixels.quotient(min(row + in_rows, p.M - 1))) * p.Co + column;
#pragma unroll
      for (int n = 0; n < product::kN; ++n) {
        const int in_columns = product::column_of_pair(n);
        T* const to = sOut.pair(in_rows, in_columns);
        float y[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          y[i] = rC[m][n][2 * half + i];
          const int at = in_columns + i;
          if (p.bias != nullptr && at < columns) y[i] += p.bias[column + at];
          if (gate != nullptr && at < columns) y[i] *= gate[at];
          if (p.residual != nullptr) y[i] += load_acc(to + i);
        }
        store_pair(to, y[0], y[1]);
      }
    }
    __syncwarp();
    sOut.store(product::MatrixRows<T>{p.out + int64_t(row) * p.Co + column, p.Co, p.M - row}, columns, p.out_bytes);
    __syncwarp();
  }
}

template <class T>
void launch_fwd(const NormLinearParams& p, const FwdPlan& plan, void* scratch, cudaStream_t stream) {
  const auto width = [](const void* rows, int64_t count, int64_t stride, int64_t columns) {
    return product::copy_bytes(rows, count, stride, columns, sizeof(T));
  };
  Projection<T> call = {};
  call.x = static_cast<const T*>(p.x);
  call.weight = static_cast<const T*>(p.weight);
  call.bias = static_cast<const float*>(p.bias);
  call.gate = static_cast<const float*>(p.gate);
  call.residual = static_cast<const T*>(p.residual);
  call.out = static_cast<T*>(p.out);
  call.norm = launch_numbers(p, plan.numbers, scratch, stream);
  call.pixels = Divisor(p.T * p.pixels());
  call.M = int(p.M()), call.C = int(p.C), call.Co = int(p.Co);
  call.stride_x = p.stride_x, call.stride_weight = p.stride_weight, call.stride_residual = p.stride_residual;
  call.x_bytes = width(p.x, p.M(), p.stride_x, p.C);
  call.weight_bytes = width(p.weight, p.Co, p.stride_weight, p.C);
  call.residual_bytes = width(p.residual, p.M(), p.stride_residual, p.Co);
  call.out_bytes = width(p.out, p.M(), p.Co, p.Co);
  call.tiles = plan.tiles;
  product::dispatch_width(call.x_bytes == 16 && call.weight_bytes == 16, [&](auto wide) {
    dispatch_numbers(call.norm.of, [&](auto of) {
      const auto kernel = norm_linear_fwd_kernel<T, decltype(wide)::value, decltype(of)::value>;
      launch("norm_linear_fwd_kernel", kernel, plan.shape, stream, call);
    });
  });
}

}  // namespace vdiff::linear
