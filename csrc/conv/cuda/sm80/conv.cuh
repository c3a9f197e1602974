// 1x3x3 and 3x1x1 convolutions as products on tensor cores: forward, and the gradient of x by a weight turned around.
//                                                          contract: params.h, NormActConvParams; plan.h: planes and tiles
//
//   y = sum over taps of h W,  h = act(norm(x)), or (1 - mix) x, zeros around
//   out = y + bias + temb | that + residual | residual + (1 - mix) that
//
//   grid   (tiles of pixels * ceil(Co / 128), 1, 1)   x alone; groups of 8 tiles of pixels before the next channels (TileGrid)
//   block  256 threads                        8 warps, 4 down and 2 across: 32 pixels x 64 channels a warp, as tile_product.cuh
//   tile   up to 128 pixels, lines x columns of a plane that fit it best, x 128 channels out; Ci by 32, float by 16
//   smem   48 KiB: two halos of up to 192 pixels of 64 bytes, of which one is in use and the next on its way; three stages of the
//          weight, 128 channels out of 64 bytes, one tap each. Then the rows of out on their way to whole pieces
//   bytes  x once from memory, with 1.1 to 1.5 times as much of L2 for each 128 of Co; the weight once, of L2 for each tile;
//          residual read, out written once
//   flops  2 * 9 Ci Co a pixel, or 2 * 3 Ci Co   of half types, 320 channels: 1,440 or 480 a byte of x and out: compute-bound
//   acc    fp32; float by three products of tf32
//   limits pixels of a plane, its tiles and C < 2^31, checked by run.cpp; offsets are 64-bit
//
//   for each chunk of Ci, for each tap:
//     wait for its weight; barrier                              (1)
//     begin to copy the weight two taps ahead, and, at the chunk's first tap, the halo of the next chunk   (2)
//     at its last tap: h = act(norm(x)) of that halo, in place  (3)
//     y += h W, h at the tap's shift in the halo                (4)
//   out, as above                                               (5)
//   of each channel out: mean and variance over the tile        (6) of the rounded values; never E[y^2] - E[y]^2
//   or, in place of out, the sum of grad y of each line         (7)
//
// Each thread normalises the pieces that it copied: (3) needs no barrier but the next tap's. Deterministic: an output is summed by
// one warp, chunk by chunk and tap by tap.
#pragma once

#include "common/cuda/launch.cuh"
#include "conv/cuda/sm80/halo.cuh"
#include "conv/cuda/sm80/instantiations.h"

namespace vdiff::convolution {

using product::kM;
using product::kN;

// A tile's pixels as rows of the product, and of tensors.
struct TileRows {
  const Tiling& p;
  const TilePlace& at;

  struct Pixel {
    int line, column;  // of the plane
    bool there;
  };
  __device__ Pixel operator()(int row) const {
    const int down = p.tile_columns.quotient(row), across = row - down * p.tile_columns.value();
    const Pixel pixel = {at.line + down, at.column + across};
    return {pixel.line, pixel.column, down < p.tiles.lines && pixel.line < p.lines && pixel.column < p.columns};
  }
};

// Where rows of the tile lie in an image, from channel n on.
template <class T>
struct ImageRows {
  const Planes& image;
  const TileRows& pixels;
  int first, n;

  struct Row {
    T* data;
    bool there;
  };
  __device__ Row operator()(int i) const {
    const TileRows::Pixel pixel = pixels(first + i);
    T* const data = static_cast<T*>(const_cast<void*>(image.data)) + image.at(pixels.at.plane) + n;
    return {pixel.there ? data + image.at(pixel.line, pixel.column) : data, pixel.there};
  }
};

// The sum of a lane's values over the warp's rows, for each of its columns.
__device__ inline float sum_down(float value) {
#pragma unroll
  for (int lanes = 4; lanes < kWarp; lanes *= 2) value += __shfl_xor_sync(~0u, value, lanes);
  return value;
}

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

template <class T, int kAcross, bool kWide>
__device__ void conv_product(product::Accumulators& rY, char* sHalos, const ConvCall& p) {
  using Rows = HaloRows;
  using WeightRows = product::OperandTile<T, true>;
  constexpr int kTaps = 3 * kAcross, kK = product::kChunk<T>, kStages = product::kStages;
  constexpr int kWeightBytes = product::kTileColumns * product::kChunkBytes;
  constexpr int kStepRows = kThreads / WeightRows::kPieces;  // of the weight, copied at once
  char* const sWeights = sHalos + 2 * kHaloBytes;
  const TileGrid::Place place = p.grid.place(blockIdx.x);
  const Halo<T, kAcross, kWide> halo(p.tiling, place.down, p.x, p.prologue, p.Ci);
  const int width = p.tiling.halo_columns.value();
  const int chunks = product::chunks_of<T>(p.Ci);

  const int first_n = place.across * product::kTileColumns, piece = threadIdx.x % Rows::kPieces;
  const int own_row = threadIdx.x / Rows::kPieces;
  const T* const gWeight = static_cast<const T*>(p.weight.data) + (first_n + own_row) * p.weight.stride_row + piece * kPiece<T>;
  const auto copy_weight = [&](int chunk, int tap, int stage) {
    const int k = chunk * kK;
    const T* const from = gWeight + (tap / kAcross * p.weight.stride_tap_line + tap % kAcross * p.weight.stride_tap_column + k);
    const uint32_t to = ptx::shared_address(sWeights) + stage * kWeightBytes + WeightRows::offset(own_row, piece);
#pragma unroll
    for (int i = 0; i < product::kTileColumns / kStepRows; ++i) {
      const bool there = chunk < chunks && k + piece * kPiece<T> < p.Ci && first_n + own_row + i * kStepRows < p.Co;
      ptx::copy_async<16>(to + i * kStepRows * WeightRows::kRowBytes, from + i * kStepRows * p.weight.stride_row, there);
    }
  };

  // The lane's rows of h, as ldmatrix takes them; those that are no pixels are some pixel's.
  int rPixel[kM];
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    const int row = product::warp_row() + 16 * m + lane_id() % 16, down = p.tiling.tile_columns.quotient(row);
    rPixel[m] = down < p.tiling.tiles.lines ? row + down * (kAcross - 1) : 0;
  }
  const product::Fragments<T, true, false> of_weight(product::warp_column());
  const bool is_busy = first_n + product::warp_column() < p.Co &&
                       product::warp_row() < p.tiling.tiles.lines * p.tiling.tiles.columns;

  halo.copy(sHalos, 0);
  copy_weight(0, 0, 0);
  ptx::copy_commit();
  copy_weight(0, 1, 1);
  ptx::copy_commit();
  ptx::copy_wait<kStages - 2>();
  halo.prepare(sHalos, 0);

  static_assert(kStages == 3);
  int stage = 0;
#pragma unroll 1
  for (int chunk = 0; chunk < chunks; ++chunk) {
    char* const sHalo = sHalos + chunk % 2 * kHaloBytes;
    char* const sNext = sHalos + (chunk + 1) % 2 * kHaloBytes;
#pragma unroll 1
    for (int tap = 0; tap < kTaps; ++tap) {
      // (1) wait for its weight; barrier
      ptx::copy_wait<kStages - 2>();
      __syncthreads();
      // (2) begin to copy the weight two taps ahead, and the halo of the next chunk
      const bool wraps = tap + 2 >= kTaps;
      copy_weight(chunk + wraps, tap + 2 - (wraps ? kTaps : 0), stage == 0 ? kStages - 1 : stage - 1);
      if (tap == 0 && chunk + 1 < chunks) halo.copy(sNext, (chunk + 1) * kK);
      ptx::copy_commit();
      // (3) h = act(norm(x)) of that halo
      if (tap == kTaps - 1 && chunk + 1 < chunks) halo.prepare(sNext, (chunk + 1) * kK);
      // (4) y += h W
      const int shift = tap / kAcross * width + tap % kAcross;
      const char* const sWeight = sWeights + stage * kWeightBytes;
      stage = stage + 1 == kStages ? 0 : stage + 1;
      if (!is_busy) continue;
      int from[kM];
#pragma unroll
      for (int m = 0; m < kM; ++m) from[m] = Rows::offset(rPixel[m] + shift, lane_id() / 16);
#pragma unroll(sizeof(T) == 4 ? 1 : product::kSteps)
      for (int step = 0; step < product::kSteps; ++step) {
        const auto rows = [&](int m) {
          uint32_t r[4];
          ptx::load_matrices(r, ptx::shared_address(sHalo) + (from[m] ^ step * 32));
          return product::Operand<T>(r);
        };
        const product::Operand<T> h[kM] = {rows(0), rows(1)};
        static_assert(kM == 2);
#pragma unroll
        for (int n = 0; n < kN; n += 2) {
          uint32_t r[4];
          of_weight.load(r, sWeight, n / 2, step);
          const product::Operand<T> w(r);
#pragma unroll
          for (int m = 0; m < kM; ++m) {
            product::multiply(rY[m][n], h[m], w, 0);
            product::multiply(rY[m][n + 1], h[m], w, 1);
          }
        }
      }
    }
  }
  product::finish();
}

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
