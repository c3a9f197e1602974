// The gradient of a convolution's weight: a product of as many columns as there are channels in and taps, over all pixels.
//                                                          contract: params.h, NormActConvBackwardParams; plan.h: WeightPlan
//
//   dW = sum over pixels of dy^T h at each tap,  dy = (1 - mix) grad,  h = act(norm(x)), zeros around
//
// conv_dweight: a part of the pixels' sum
//
//   grid   (tiles of Co and Ci * parts, 1, 1)   x alone; pixels are cut into parts where tiles are few, by the shape alone
//   block  256 threads                        8 warps, 4 down and 2 across: 32 channels out x 16 in at all taps, float 8 in: 144
//                                             accumulators a lane of 1x3x3
//   tile   128 channels out x 32 in, float 16; up to 128 pixels at once, float 64, of lines x columns
//   smem   88 KiB: two stages of 32 KiB of dy, a row a pixel, and of a halo of x (halo.cuh); a block a multiprocessor
//   bytes  of L2 x with its halo for each 128 of Co, grad for each 32 of Ci; parts written, 4 bytes an entry of the weight
//   flops  2 * 9 Ci Co a pixel, or 2 * 3 Ci Co   230 or 77 a byte of L2
//   acc    fp32; float by three products of tf32
//
//   for each tile of pixels:
//     wait for it; dy and h in place, of the thread's own pieces; barrier   (1)
//     begin to copy the next                                     (2)
//     dW += dy^T h, at each tap's shift in the halo              (3)
//
// conv_dweight_sum: the parts added up in order, and turned to (Co, Ci, taps)
//
//   grid   (Co * ceil(Ci / 32), 1, 1)         block a warp a tap, a lane a channel in
#pragma once

#include "common/cuda/launch.cuh"
#include "conv/cuda/sm80/halo.cuh"
#include "conv/cuda/sm80/instantiations.h"

namespace vdiff::convolution {

// The gradient's tile: rows of pixels, of kTileRows channels.
template <class T, bool kWide>
class GradientRows {
  using Rows = product::OperandTile<T, false>;
  static constexpr int kStep = kThreads / Rows::kPieces;

 public:
  static constexpr int kRowsOfAStep = 32 / sizeof(T);  // of a product's step along k

  // first: channel.
  __device__ GradientRows(const WeightCall& p, int first)
      : p_(p), c_(first + int(threadIdx.x) % Rows::kPieces * kPiece<T>) {}

  __device__ void copy(char* sRows, const TilePlace& at) const {
    const T* const gGrad = static_cast<const T*>(p_.grad.data) + p_.grad.at(at.plane) + c_;
    for_rows(at, [&](int offset, int line, int column, bool there) {
      const T* const from = there ? gGrad + p_.grad.at(line, column) : gGrad;
      copy_piece<kWide>(sRows + offset, from, there ? p_.Co - c_ : 0, p_.grad.bytes);
    });
  }

  __device__ void prepare(char* sRows, const TilePlace& at) const {
    if (p_.of_grad.is_nothing() || c_ >= p_.Co) return;
    for_rows(at, [&](int offset, int line, int, bool there) {
      if (there) prepare_piece<kWide, T>(sRows + offset, p_.of_grad, p_.tiling.frame(at.plane, line), c_, p_.Co);
    });
  }

 private:
  // Of whole steps; those behind the tile's pixels are zeros.
  template <class Body>
  __device__ void for_rows(const TilePlace& at, const Body& body) const {
    const Tiling& t = p_.tiling;
    const int pixels = t.tiles.lines * t.tiles.columns;
    const int rows = (pixels + kRowsOfAStep - 1) / kRowsOfAStep * kRowsOfAStep;
#pragma unroll 1
    for (int row = threadIdx.x / Rows::kPieces; row < rows; row += kStep) {
      const int down = t.tile_columns.quotient(row);
      const int line = at.line + down, column = at.column + row - down * t.tile_columns.value();
      body(Rows::offset(row, threadIdx.x % Rows::kPieces), line, column, row < pixels && line < t.lines && column < t.columns);
    }
  }

  const WeightCall& p_;
  int c_;
};

template <class T>
constexpr int kColumnTiles = product::kChunk<T> / 16;  // of 8 channels in, of a warp

// The warp's fragments of h: a step's pixels by its channels in.
template <class T>
__device__ void load_columns(uint32_t (&r)[4], const char* sHalo, const int (&pixel)[2], int shift) {
  const int lane = lane_id(), across = threadIdx.x / (kWarp * product::kWarpsDown);
  if constexpr (sizeof(T) == 2) {
    ptx::load_matrices_transposed(
        r, ptx::shared_address(sHalo) + HaloRows::offset(pixel[0] + shift, across * 2 + lane / 16));
  } else {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int offset = HaloRows::offset(pixel[e] + shift, across * 2 + lane / 16) + lane / 4 % 4 * 4;
      r[e] = *reinterpret_cast<const uint32_t*>(sHalo + offset);
    }
    r[2] = r[3] = 0;
  }
}

template <class T, int kAcross, int kWide>
__global__ void __launch_bounds__(kThreads, 1) conv_dweight_kernel(WeightCall p) {
  extern __shared__ __align__(16) char shared_memory[];
  constexpr int kTaps = 3 * kAcross, kN = kColumnTiles<T>, kM = product::kM;
  constexpr int64_t kStageBytes = kGradientBytes + kHaloBytes;
  int* const sPixels = reinterpret_cast<int*>(shared_memory + 2 * kStageBytes);  // of each pixel, where its halo begins
  const Tiling& t = p.tiling;
  const int pixels = t.tiles.lines * t.tiles.columns;
  const int tiles = int(p.grid.count()), part = blockIdx.x / tiles;
  const TileGrid::Place place = p.grid.place(blockIdx.x - part * tiles);
  const int first_co = place.down * product::kTileRows, first_ci = place.across * product::kChunk<T>;
  const int first = part * p.part, end = min(first + p.part, p.planes * t.tiles.count());

  for (int i = threadIdx.x; i < kTilePixels; i += kThreads) {
    sPixels[i] = i < pixels ? i + t.tile_columns.quotient(i) * (kAcross - 1) : 0;
  }
  const GradientRows<T, kWide> gradient(p, first_co);
  const auto copy = [&](int tile) {
    if (tile < end) {
      char* const to = shared_memory + tile % 2 * kStageBytes;
      gradient.copy(to, TilePlace(t, tile));
      Halo<T, kAcross, kWide>(t, tile, p.x, p.of_x, p.Ci).copy(to + kGradientBytes, first_ci);
    }
    ptx::copy_commit();
  };
  const product::Fragments<T, false, true> of_gradient(product::warp_row());
  const int warp_ci = first_ci + threadIdx.x / (kWarp * product::kWarpsDown) * kN * 8;
  const bool is_busy = __all_sync(~0u, first_co + product::warp_row() < p.Co && warp_ci < p.Ci);  // of a whole warp

  float rW[kTaps][kM][kN][4] = {};
  copy(first);
#pragma unroll 1
  for (int tile = first; tile < end; ++tile) {
    char* const sGradient = shared_memory + tile % 2 * kStageBytes;
    char* const sHalo = sGradient + kGradientBytes;
    // (1) wait for it; dy and h in place; barrier
    ptx::copy_wait<0>();
    gradient.prepare(sGradient, TilePlace(t, tile));
    Halo<T, kAcross, kWide>(t, tile, p.x, p.of_x, p.Ci).prepare(sHalo, first_ci);
    __syncthreads();
    // (2) begin to copy the next
    copy(tile + 1);
    __syncwarp();  // of lanes that have parted
    // (3) dW += dy^T h
    if (!is_busy) continue;
    constexpr int kK = GradientRows<T, kWide>::kRowsOfAStep;
    const int width = t.halo_columns.value(), lane = lane_id();
#pragma unroll 1
    for (int step = 0; step * kK < pixels; ++step) {
      int pixel[2];
      if constexpr (sizeof(T) == 2) {
        pixel[0] = sPixels[step * kK + lane % 16];
      } else {
        pixel[0] = sPixels[step * kK + lane % 4];
        pixel[1] = sPixels[step * kK + lane % 4 + 4];
      }
      const auto rows = [&](int m) {
        uint32_t r[4];
        of_gradient.load(r, sGradient, m, step);
        return product::Operand<T>(r);
      };
      const product::Operand<T> dy[kM] = {rows(0), rows(1)};
#pragma unroll
      for (int tap = 0; tap < kTaps; ++tap) {
        uint32_t r[4];
        load_columns<T>(r, sHalo, pixel, tap / kAcross * width + tap % kAcross);
        const product::Operand<T> h(r);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
          for (int n = 0; n < kN; ++n) product::multiply(rW[tap][m][n], dy[m], h, n);
        }
      }
    }
  }

  if (!is_busy) return;
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) {
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int co = first_co + product::warp_row() + 16 * m + product::row_of_pair(half);
        float* const gRow = p.parts + ((int64_t(part) * kTaps + tap) * p.Co + co) * p.columns + warp_ci;
#pragma unroll
        for (int n = 0; n < kN; ++n) {
          float* const pair = gRow + product::column_of_pair(n);
          if (co < p.Co) store_pair(pair, rW[tap][m][n][2 * half], rW[tap][m][n][2 * half + 1]);
        }
      }
    }
  }
}

template <class T, int kAcross>
__global__ void __launch_bounds__(3 * kAcross * kWarp)
    conv_dweight_sum_kernel(const float* parts, T* dweight, int Co, int Ci, int columns, int count) {
  constexpr int kTaps = 3 * kAcross;
  __shared__ float sRow[kWarp * kTaps];
  const int tiles_ci = (Ci + kWarp - 1) / kWarp, tap = threadIdx.x / kWarp;
  const int co = blockIdx.x / tiles_ci, first_ci = blockIdx.x % tiles_ci * kWarp, ci = first_ci + lane_id();
  float sum = 0;
  for (int part = 0; part < count && ci < Ci; ++part) {
    sum += parts[((int64_t(part) * kTaps + tap) * Co + co) * columns + ci];
  }
  sRow[lane_id() * kTaps + tap] = sum;
  __syncthreads();
  const int i = threadIdx.x;
  if (i < (Ci - first_ci) * kTaps) store_acc(dweight + (int64_t(co) * Ci + first_ci) * kTaps + i, sRow[i]);
}

template <class T>
void launch_dweight(const WeightCall& call, const WeightPlan& plan, void* dweight, int across, cudaStream_t stream) {
  dispatch_taps(across, call.x.bytes == 16 && call.grad.bytes == 16, [&](auto taps_across, auto wide) {
    constexpr int kAcross = decltype(taps_across)::value;
    launch("conv_dweight_kernel", conv_dweight_kernel<T, kAcross, decltype(wide)::value>, plan.shape, stream, call);
    launch("conv_dweight_sum_kernel", conv_dweight_sum_kernel<T, kAcross>, plan.sum, stream, call.parts, static_cast<T*>(dweight),
           call.Co, call.Ci, call.columns, plan.parts);
  });
}

}  // namespace vdiff::convolution
