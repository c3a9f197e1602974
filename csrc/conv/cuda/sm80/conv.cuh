// norm_act_conv forward: y of conv_product.cuh, and what follows it.            contract: params.h, NormActConvParams
//
//   grid, block, tile  conv_product.cuh's
//   smem   behind the product: the warps' rows of out on their way to whole pieces, 16 KiB, float 32, and 8 KiB of moments
//   bytes  residual read once, out written once; 8 bytes a channel of a tile, where statistics are wanted
//
//   out = y + bias + temb | that + residual | residual + (1 - mix) that    (5)
//   of each channel out: mean and variance over the tile        (6) of the rounded values; never E[y^2] - E[y]^2
//   or, in place of out, the sum of grad (y + bias + temb) of each line    (7)
#pragma once

#include "common/cuda/launch.cuh"
#include "conv/cuda/sm80/conv_product.cuh"
#include "conv/cuda/sm80/instantiations.h"

namespace vdiff::convolution {

// (6) Of 16 rows at a time, in shared memory: how many are pixels, and each channel's mean and squared deviations over those.
struct TileStats {
  static constexpr int kGroups = kTilePixels / 16;
  int pixels[kGroups];
  float2 moments[kGroups][product::kTileColumns];

  // The warp's rows of tile m, of which the lane's are there.
  __device__ void put(int m, const float (&rows)[kN][4], const bool (&there)[2]) {
    const int group = product::warp_row() / 16 + m;
    const int count = (__popc(__ballot_sync(~0u, there[0])) + __popc(__ballot_sync(~0u, there[1]))) / 4;
    if (lane_id() == 0) pixels[group] = count;  // the same by both warps across
    const float share = count > 0 ? 1.f / count : 0;
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float one[2] = {rows[n][j], rows[n][2 + j]};
        const float mean = sum_down((there[0] ? one[0] : 0) + (there[1] ? one[1] : 0)) * share;
        const float apart[2] = {there[0] ? one[0] - mean : 0, there[1] ? one[1] - mean : 0};
        const float squares = sum_down(apart[0] * apart[0] + apart[1] * apart[1]);
        if (lane_id() < 4) moments[group][product::warp_column() + product::column_of_pair(n) + j] = {mean, squares};
      }
    }
  }

  // All groups', merged after Chan, Golub and LeVeque 1979: mean and biased variance.
  __device__ float2 of(int column) const {
    const float first = moments[0][column].x;  // the first row is a pixel
    float count = 0, sum = 0, squares = 0;
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
      count += pixels[i];
      sum += pixels[i] * (moments[i][column].x - first);
    }
    const float apart = sum / count;
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
      const float deviation = moments[i][column].x - first - apart;
      squares += moments[i][column].y + pixels[i] * (deviation * deviation);
    }
    return {first + apart, squares / count};
  }
};

// (7) Of each row, over the columns of each of the warps across.
struct TileDots {
  float rows[product::kWarpsAcross][kTilePixels];

  __device__ void put(int row, const float (&products)[kN][4], int half, bool there) {
    float sum = 0;
#pragma unroll
    for (int n = 0; n < kN; ++n) sum += products[n][2 * half] + products[n][2 * half + 1];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    if (lane_id() % 4 == 0) rows[threadIdx.x / (kWarp * product::kWarpsDown)][row] = there ? sum : 0;
  }

  __device__ float of(int first, int end) const {
    float sum = 0;
    for (int i = first; i < end; ++i) sum += rows[0][i] + rows[1][i];
    return sum;
  }
};

// 1x3x3 with kAcross = 3, 3x1x1 with 1. kWide: x is moved by 16 bytes.
template <class T, int kAcross, int kWide>
__global__ void __launch_bounds__(kThreads, product::kBlocks<kWide>) conv_kernel(ConvCall p, Result result) {
  extern __shared__ __align__(16) char shared_memory[];
  using Rows = product::WarpRows<T, product::kWarpColumns>;
  constexpr int kRowsBytes = product::kWarps * Rows::kBytes;
  static_assert(kRowsBytes + sizeof(TileStats) <= kConvBytes && kRowsBytes + sizeof(TileDots) <= kConvBytes);
  product::Accumulators rY = {};
  conv_product<T, kAcross, kWide>(rY, shared_memory, p);

  // (5) out
  const TileGrid::Place place = p.grid.place(ptx::opaque(blockIdx.x));
  const TilePlace at(p.tiling, place.down);
  const TileRows pixels = {p.tiling, at};
  const int n = place.across * product::kTileColumns + product::warp_column();
  const Rows sRows(shared_memory + threadIdx.x / kWarp * Rows::kBytes);
  auto* const sStats = reinterpret_cast<TileStats*>(shared_memory + kRowsBytes);
  auto* const sDots = reinterpret_cast<TileDots*>(shared_memory + kRowsBytes);
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    const int first = product::warp_row() + 16 * m;
    if (p.other.data) sRows.load(ImageRows<const T>{p.other, pixels, first, n}, p.Co - n, p.other.bytes);
    __syncwarp();
    bool there[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = product::row_of_pair(half);
      const TileRows::Pixel pixel = pixels(first + row);
      there[half] = pixel.there;
      const int frame = pixel.there ? p.tiling.frame(at.plane, pixel.line) : 0;
      const int from = ptx::opaque(n);  // the bias is loaded again for each row: kept, it would take 16 registers
      const float* const temb = p.temb ? p.temb + int64_t(frame) * p.Co + from : nullptr;
      const float factor = p.mix && result != Result::Dot ? 1 - p.mix[frame] : 1;
#pragma unroll
      for (int i = 0; i < kN; ++i) {
        const int column = product::column_of_pair(i);
        T* const pair = sRows.pair(row, column);
        float y[2];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          y[j] = rY[m][i][2 * half + j];
          if (from + column + j >= p.Co) continue;
          if (p.bias) y[j] += p.bias[from + column + j];
          if (temb) y[j] += temb[column + j];
        }
        if (result != Result::Dot) {
          if (p.other.data) {
            y[0] = load_acc(pair) + factor * y[0];
            y[1] = load_acc(pair + 1) + factor * y[1];
          }
          store_pair(pair, y[0], y[1]);
          y[0] = y[1] = 1;
        }
        rY[m][i][2 * half] = load_acc(pair) * y[0];
        rY[m][i][2 * half + 1] = load_acc(pair + 1) * y[1];
      }
      if (result == Result::Dot) sDots->put(first + row, rY[m], half, there[half]);
    }
    if (result == Result::OutAndStats) sStats->put(m, rY[m], there);
    __syncwarp();
    if (result != Result::Dot) sRows.store(ImageRows<T>{p.out, pixels, first, n}, p.Co - n, p.out.bytes);
    __syncwarp();
  }
  if (result == Result::Out) return;
  __syncthreads();
  const TileGrid::Place again = p.grid.place(ptx::opaque(blockIdx.x));
  const int i = threadIdx.x, co = again.across * product::kTileColumns + i, lines = p.tiling.tiles.lines;
  if (result == Result::OutAndStats) {
    // (6) of each channel out: mean and variance over the tile
    float2* const gStats = reinterpret_cast<float2*>(p.partials) + int64_t(again.down) * p.Co;
    if (i < product::kTileColumns && co < p.Co) gStats[co] = sStats->of(i);
  } else if (i < lines) {
    // (7) the sum of grad y of each line
    const int width = p.tiling.tiles.columns;
    p.partials[(int64_t(again.down) * p.grid.across + again.across) * lines + i] = sDots->of(i * width, (i + 1) * width);
  }
}

template <class T>
void launch_conv(const ConvCall& call, Result result, int across, const LaunchShape& shape, cudaStream_t stream) {
  dispatch_taps(across, call.x.bytes == 16, [&](auto taps_across, auto wide) {
    launch("conv_kernel", conv_kernel<T, decltype(taps_across)::value, decltype(wide)::value>, shape, stream, call, result);
  });
}

}  // namespace vdiff::convolution
