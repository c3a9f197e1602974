// The gradient of x before its norm: dh, a convolution of dy by conv_product.cuh, back through the activation, and the sums that
// the norm's own backward needs of it (norm_act_bwd.cuh).            contract: params.h, NormActConvBackwardParams
//
//   grid, block, tile  conv_product.cuh's, with the channels exchanged: x and du have Co of them here
//   smem   behind the product: the warps' rows of x and du, 16 KiB, float 32, and 8 KiB of sums
//   bytes  x read once, du written once; 8 bytes a channel of a tile. The table's three numbers of each channel for each 16 rows
//
//   dh = sum over taps of dy W turned around
//   du = dh act'(u), u = (x - mean) mul + add                   (1)
//   sum_1 += du, sum_n += du (x - mean) rstd, over the tile     (2) a lane's two rows, eight lanes', the groups of 16 in order
//
// The frames of a tile share a row of the norm's table: the launcher takes another way where they do not.
#pragma once

#include "common/cuda/launch.cuh"
#include "conv/cuda/sm80/conv_product.cuh"
#include "conv/cuda/sm80/instantiations.h"

namespace vdiff::convolution {

template <class T, int kAcross, int kWide>
__global__ void __launch_bounds__(kThreads, product::kBlocks<kWide>) conv_du_kernel(ConvCall p) {
  extern __shared__ __align__(16) char shared_memory[];
  using Rows = product::WarpRows<T, product::kWarpColumns>;
  constexpr int kRowsBytes = product::kWarps * Rows::kBytes, kGroups = kTilePixels / 16;
  using Sums = float2[kGroups][product::kTileColumns];
  static_assert(kRowsBytes + sizeof(Sums) <= kConvBytes);
  product::Accumulators rY = {};
  conv_product<T, kAcross, kWide>(rY, shared_memory, p);

  const TileGrid::Place place = p.grid.place(ptx::opaque(blockIdx.x));
  const TilePlace at(p.tiling, place.down);
  const TileRows pixels = {p.tiling, at};
  const int n = place.across * product::kTileColumns + product::warp_column();
  const Rows sRows(shared_memory + threadIdx.x / kWarp * Rows::kBytes);
  Sums& sSums = *reinterpret_cast<Sums*>(shared_memory + kRowsBytes);
  // The tile's row of the table; null without a norm.
  const float* const gRow = p.back.table ? p.back.field(norms::kMean, p.tiling.frame(at.plane, at.line), p.Co) : nullptr;
  const auto field = [&](norms::Field which, int column, float without) {
    return gRow && n + column < p.Co ? gRow[which * p.Co + n + column] : without;
  };
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    const int first = product::warp_row() + 16 * m;
    sRows.load(ImageRows<const T>{p.other, pixels, first, n}, p.Co - n, p.other.bytes);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      const int column = product::column_of_pair(i);
      float du[2][2], sums[2][2] = {};
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float mean = field(norms::kMean, column + j, 0), mul = field(norms::kMul, column + j, 1);
        const float add = field(norms::kAdd, column + j, 0);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          // (1) du = dh act'(u), u = (x - mean) mul + add
          const float centred = load_acc(sRows.pair(product::row_of_pair(half), column) + j) - mean;
          du[half][j] = rY[m][i][2 * half + j] * slope(centred * mul + add, p.back.silu);
          // (2) sum_1 += du, sum_n += du (x - mean) rstd
          if (!pixels(first + product::row_of_pair(half)).there) continue;
          sums[0][j] += du[half][j];
          sums[1][j] += du[half][j] * centred;
        }
        if (p.partials == nullptr) continue;
        const float2 group = {sum_down(sums[0][j]), sum_down(sums[1][j])};
        if (lane_id() < 4) sSums[first / 16][product::warp_column() + column + j] = group;
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) store_pair(sRows.pair(product::row_of_pair(half), column), du[half][0], du[half][1]);
    }
    __syncwarp();
    sRows.store(ImageRows<T>{p.out, pixels, first, n}, p.Co - n, p.out.bytes);
    __syncwarp();
  }
  if (p.partials == nullptr) return;
  __syncthreads();
  const int column = threadIdx.x, c = place.across * product::kTileColumns + column;
  if (column >= product::kTileColumns || c >= p.Co) return;
  float one = 0, x = 0;
#pragma unroll
  for (int i = 0; i < kGroups; ++i) one += sSums[i][column].x, x += sSums[i][column].y;
  float* const gSums = p.partials + int64_t(place.down) * 2 * p.Co + c;
  gSums[0] = one;
  gSums[p.Co] = x * gRow[norms::kRstd * p.Co + c];
}

template <class T>
void launch_conv_du(const ConvCall& call, int across, const LaunchShape& shape, cudaStream_t stream) {
  dispatch_taps(across, call.x.bytes == 16, [&](auto taps_across, auto wide) {
    launch("conv_du_kernel", conv_du_kernel<T, decltype(taps_across)::value, decltype(wide)::value>, shape, stream, call);
  });
}

}  // namespace vdiff::convolution
