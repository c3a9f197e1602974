// 1x3x3 and 3x1x1 convolutions as products on tensor cores: the main loop, which forward and the gradient of x share.
//                                                          plan.h: planes and tiles; halo.cuh: a tile's operand
//
//   y = sum over taps of h W,  h = act(norm(x)), or (1 - mix) x, zeros around
//
//   grid   (tiles of pixels * ceil(Co / 128), 1, 1)   x alone; groups of 8 tiles of pixels before the next channels (TileGrid)
//   block  256 threads                        8 warps, 4 down and 2 across: 32 pixels x 64 channels a warp, as tile_product.cuh
//   tile   up to 128 pixels, lines x columns of a plane that fit it best, x 128 channels out; Ci by 32, float by 16
//   smem   48 KiB: two halos of up to 192 pixels of 64 bytes, of which one is in use and the next on its way; three stages of the
//          weight, 128 channels out of 64 bytes, one tap each. Then the epilogue's
//   bytes  x once from memory, with 1.1 to 1.5 times as much of L2 for each 128 of Co; the weight once, of L2 for each tile
//   flops  2 * 9 Ci Co a pixel, or 2 * 3 Ci Co   of half types, 320 channels: 1,440 or 480 a byte of x and y: compute-bound
//   acc    fp32; float by three products of tf32
//   limits pixels of a plane, its tiles and C < 2^31, checked by run.cpp; offsets are 64-bit
//
//   for each chunk of Ci, for each tap:
//     wait for its weight; barrier                              (1)
//     begin to copy the weight two taps ahead, and, at the chunk's first tap, the halo of the next chunk   (2)
//     at its last tap: h = act(norm(x)) of that halo, in place  (3)
//     y += h W, h at the tap's shift in the halo                (4)
//
// Each thread normalises the pieces that it copied: (3) needs no barrier but the next tap's. Deterministic: an output is summed by
// one warp, chunk by chunk and tap by tap.
#pragma once

#include "conv/cuda/sm80/calls.h"
#include "conv/cuda/sm80/halo.cuh"

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

// A thread's part in copying the weight: of its rows, tap by tap and chunk by chunk.
template <class T, int kAcross>
class WeightCopies {
  using Tile = product::OperandTile<T, true>;
  static constexpr int kStep = kThreads / Tile::kPieces;  // from one row of a thread to its next
  static constexpr int kOwn = product::kTileColumns / kStep;

 public:
  static constexpr int kBytes = product::kTileColumns * product::kChunkBytes;  // of a stage

  __device__ WeightCopies(const ConvCall& p, int first_row) : p_(p), k_(threadIdx.x % Tile::kPieces * kPiece<T>), tap_(0) {
    const int row = threadIdx.x / Tile::kPieces;
    from_ = static_cast<const T*>(p.weight.data) + (first_row + row) * p.weight.stride_row + k_;
    to_ = Tile::offset(row, threadIdx.x % Tile::kPieces);
#pragma unroll
    for (int i = 0; i < kOwn; ++i) there_[i] = first_row + row + i * kStep < p.Co;
  }

  __device__ void copy_next(char* sWeight) {
    const uint32_t to = ptx::shared_address(sWeight) + to_;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      ptx::copy_async<16>(to + i * kStep * Tile::kRowBytes, from_ + i * kStep * p_.weight.stride_row, there_[i] && k_ < p_.Ci);
    }
    const bool ends_line = (tap_ + 1) % kAcross == 0, ends_chunk = tap_ + 1 == 3 * kAcross;
    from_ += ends_chunk ? p_.weight.next_chunk : ends_line ? p_.weight.next_line : p_.weight.next_column;
    tap_ = ends_chunk ? 0 : tap_ + 1;
    k_ += ends_chunk ? product::kChunk<T> : 0;
  }

 private:
  const ConvCall& p_;
  const T* from_;
  int to_, k_, tap_;
  bool there_[kOwn];
};

template <class T, int kAcross, bool kWide>
__device__ void conv_product(product::Accumulators& rY, char* sHalos, const ConvCall& p) {
  using Rows = HaloRows;
  constexpr int kTaps = 3 * kAcross, kK = product::kChunk<T>, kStages = product::kStages;
  constexpr int kWeightBytes = WeightCopies<T, kAcross>::kBytes;
  char* const sWeights = sHalos + 2 * kHaloBytes;
  const TileGrid::Place place = p.grid.place(blockIdx.x);
  const Halo<T, kAcross, kWide> halo(p.tiling, place.down, p.x, p.prologue, p.Ci);
  const int chunks = product::chunks_of<T>(p.Ci);

  const int first_n = place.across * product::kTileColumns;
  WeightCopies<T, kAcross> weight(p, first_n);

  // The lane's rows of h, as ldmatrix takes them; those that are no pixels are some pixel's.
  int rPixel[kM];
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    const int row = product::warp_row() + 16 * m + lane_id() % 16, down = p.tiling.tile_columns.quotient(row);
    rPixel[m] = down < p.tiling.tiles.lines ? row + down * (kAcross - 1) : 0;
    if (sizeof(T) == 2) rPixel[m] = ptx::opaque(rPixel[m]);  // or it is found again for each tap; float has no register for it
  }
  const product::Fragments<T, true, false> of_weight(product::warp_column());
  // Of a whole warp, as a vote makes plain.
  const bool is_busy = __all_sync(~0u, first_n + product::warp_column() < p.Co &&
                                           product::warp_row() < p.tiling.tiles.lines * p.tiling.tiles.columns);

  halo.copy(sHalos, 0);
  weight.copy_next(sWeights);
  ptx::copy_commit();
  weight.copy_next(sWeights + kWeightBytes);
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
      weight.copy_next(sWeights + (stage == 0 ? kStages - 1 : stage - 1) * kWeightBytes);
      if (tap == 0 && chunk + 1 < chunks) halo.copy(sNext, (chunk + 1) * kK);
      ptx::copy_commit();
      // (3) h = act(norm(x)) of that halo
      if (tap == kTaps - 1 && chunk + 1 < chunks) halo.prepare(sNext, (chunk + 1) * kK);
      __syncwarp();  // of lanes that have parted
      // (4) y += h W
      const int shift = tap / kAcross * p.tiling.halo_columns.value() + tap % kAcross;
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

}  // namespace vdiff::convolution
