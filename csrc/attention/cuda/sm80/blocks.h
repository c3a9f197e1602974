// A block of each kernel: its threads, its tiles, and what lies in its shared memory. The kernels find their parts there by these
// structs, and plan.h asks the same structs for their bytes. No CUDA header, no torch, no STL.
#pragma once

#include <cstdint>

#include "common/cuda/launch_shape.h"
#include "common/cuda/shared_tile.h"

namespace vdiff::attention {

// ---------------------------------------------------------------------------------------------------------- short sequences

constexpr int kMaxWarps = 4;  // of a block

template <int kRows>
using ShortShape = Shape<kRows, kRows>;

// Rows of neighbouring sequences. A pair shares a tile of 16 rows, without a gap; others have one that puts the end of a row
// beside the beginning of the next sequence's.
template <class T, int kRows>
VDIFF_HOST_DEVICE int short_tile_gap(int64_t D) {
  return kRows == 8 ? 0 : int(D) / kPiece<T> % 8 * kPiece<T>;
}

template <class T, int kRows>
VDIFF_HOST_DEVICE SharedTile<T> short_tile(void* base, int64_t D) {
  return {static_cast<T*>(base), row_elements<T>(D), short_tile_gap<T, kRows>(D)};
}

// Of a warp; the plan tells the kernel how many bytes that is.
template <class T, int kRows>
struct ShortFwdMemory {
  SharedTile<T> sQ, sK, sV;  // kRows rows of `count` sequences each; out goes where q was
  float* weights;
  char* end;

  VDIFF_HOST_DEVICE ShortFwdMemory(char* base, int count, int64_t D)
      : sQ(short_tile<T, kRows>(base, D)),
        sK(short_tile<T, kRows>(sQ.row(count, kRows, 0), D)),
        sV(short_tile<T, kRows>(sK.row(count, kRows, 0), D)),
        weights(reinterpret_cast<float*>(sV.row(count, kRows, 0))),
        end(reinterpret_cast<char*>(weights + kWeightsFloats<ShortShape<kRows>, T>)) {}
};

// The sequences of a steady kernel's unit: those of a tile, and the fewest whose rows of a frame are whole sectors of half types.
template <int kRows, int kD>
constexpr int kSteadyCount = kRows == 8 || kD % 16 != 0 ? 2 : 1;

// Scores of a tile, a lane's elements kWarp apart.
template <class S>
constexpr int kTileElements = S::kM * S::kN * 4 * kWarp;

// Dbias: what the kernel sees the bias gradient as, by its address.
template <class T, int kRows, class Dbias = float*>
struct ShortBwdMemory {
  using S = ShortShape<kRows>;
  SharedTile<T> sQ, sK, sV, sG;  // kRows rows of `count` sequences each; dq, dk and dv go where q, k and dout were
  float *p, *ds;                 // as operands
  Dbias dbias;                   // kTileElements for each tile
  char* end;

  VDIFF_HOST_DEVICE ShortBwdMemory(char* base, int count, int64_t D, bool with_dbias)
      : sQ(short_tile<T, kRows>(base, D)),
        sK(short_tile<T, kRows>(sQ.row(count, kRows, 0), D)),
        sV(short_tile<T, kRows>(sK.row(count, kRows, 0), D)),
        sG(short_tile<T, kRows>(sV.row(count, kRows, 0), D)),
        p(reinterpret_cast<float*>(sG.row(count, kRows, 0))),
        ds(p + kWeightsFloats<S, T>),
        dbias{ds + kWeightsFloats<S, T>},
        end(reinterpret_cast<char*>(
            ds + kWeightsFloats<S, T> + (with_dbias ? count / (S::kPaired ? 2 : 1) * kTileElements<S> : 0))) {}
};

constexpr int kSlices = 16;  // warps of short_bias_sum

// ----------------------------------------------------------------------------------------------------------- long sequences

constexpr int kLongWarps = 4;  // of a block at most
constexpr int kWarpRows = 16;

// Columns of the scores at a time. kClass: columns of D that a thread's accumulators hold.
template <class T, int kClass>
constexpr int kTileColumns = (sizeof(T) == 4 ? 32 : 64) / (kClass > 128 ? 2 : 1);

template <class T, int kClass>
using LongShape = Shape<kWarpRows, kTileColumns<T, kClass>>;

// The part of the bias table that a tile of scores reads: in shared memory where it is small, as a relative table's is.
constexpr int kBiasWindow = 1024;  // floats: of frames up to 128 pixels wide, and of frames in time

template <int kColumns>
struct BiasPart {
  char* base;  // shared

  static VDIFF_HOST_DEVICE int64_t bytes(bool bias) {
    return bias ? kColumns * sizeof(int64_t) + kBiasWindow * sizeof(float) : 0;
  }

  VDIFF_HOST_DEVICE float* window() const { return reinterpret_cast<float*>(base + kColumns * sizeof(int64_t)); }
  // Of each column of the tile: with a window, its bytes into it; without one, its elements into the head's table.
  VDIFF_HOST_DEVICE int* window_offsets() const { return reinterpret_cast<int*>(base); }
  VDIFF_HOST_DEVICE int64_t* table_offsets() const { return reinterpret_cast<int64_t*>(base); }
};

// Forward of half types has a class for each of the usual head dims, and there the rows of a class have the same pitch, so that
// what is read of a tile lies at constant offsets. kLeastColumns: the fewest, of multiples of 16, that a class is taken for.
template <class T, int kClass>
constexpr bool kFixedPitch = sizeof(T) == 2 && kClass < 256;

template <class T, int kClass>
constexpr int kLeastColumns = kClass == 256 ? (sizeof(T) == 4 ? 144 : 176)
                              : kClass == 128 ? (sizeof(T) == 4 ? 80 : 96)
                              : kClass == 160 ? 144
                              : kFixedPitch<T, kClass> && kClass >= 64 ? kClass : kColumns;

template <class T, int kClass>
struct LongFwdMemory {
  using S = LongShape<T, kClass>;
  static constexpr int kKeys = kTileColumns<T, kClass>;
  float* weights;  // kWeightsFloats for each warp
  SharedTile<T> sQ, sK, sV;
  BiasPart<kKeys> bias;
  char* end;

  VDIFF_HOST_DEVICE LongFwdMemory(char* base, int warps, int64_t D, bool with_bias)
      : weights(reinterpret_cast<float*>(base)),
        sQ{reinterpret_cast<T*>(weights + warps * kWeightsFloats<S, T>), row_elements<T>(kFixedPitch<T, kClass> ? kClass : D)},
        sK{sQ.row(kWarpRows * warps), sQ.ld},
        sV{sK.row(kKeys), sQ.ld},
        bias{reinterpret_cast<char*>(sV.row(kKeys))},
        end(bias.base + bias.bytes(with_bias)) {}
};

template <class T, int kClass>
struct LongDqMemory {
  using S = LongShape<T, kClass>;
  static constexpr int kKeys = kTileColumns<T, kClass>;
  float* weights;
  SharedTile<T> sQ, sG, sK, sV;
  BiasPart<kKeys> bias;
  char* end;

  VDIFF_HOST_DEVICE LongDqMemory(char* base, int warps, int64_t D, bool with_bias)
      : weights(reinterpret_cast<float*>(base)),
        sQ{reinterpret_cast<T*>(weights + warps * kWeightsFloats<S, T>), row_elements<T>(D)},
        sG{sQ.row(kWarpRows * warps), sQ.ld},
        sK{sG.row(kWarpRows * warps), sQ.ld},
        sV{sK.row(kKeys), sQ.ld},
        bias{reinterpret_cast<char*>(sV.row(kKeys))},
        end(bias.base + bias.bytes(with_bias)) {}
};

template <class T>
constexpr int kDkdvClass = sizeof(T) == 4 ? 64 : 128;  // columns that accumulators hold at most

template <class T>
struct LongDkdvMemory {
  static constexpr int kQueries = sizeof(T) == 4 ? 16 : 32;
  using S = Shape<kWarpRows, kQueries>;
  float *lse, *delta;            // of the queries
  float* weights;                // kWeightsFloats for each warp
  SharedTile<T> sK, sV, sQ, sG;  // sQ, sG: a tile for each stage
  BiasPart<kQueries> bias;
  char* end;

  VDIFF_HOST_DEVICE LongDkdvMemory(char* base, int warps, int stages, int64_t D, bool with_bias)
      : lse(reinterpret_cast<float*>(base)),
        delta(lse + kQueries),
        weights(delta + kQueries),
        sK{reinterpret_cast<T*>(weights + warps * kWeightsFloats<S, T>), row_elements<T>(D)},
        sV{sK.row(kWarpRows * warps), sK.ld},
        sQ{sV.row(kWarpRows * warps), sK.ld},
        sG{sQ.row(stages * kQueries), sK.ld},
        bias{reinterpret_cast<char*>(sG.row(stages * kQueries))},
        end(bias.base + bias.bytes(with_bias)) {}
};

template <class T, int kClass>
struct LongBiasMemory {
  static constexpr int kKeys = kTileColumns<T, kClass>;
  using S = Shape<kWarpRows, kKeys>;
  static constexpr int kSumLd = kKeys + 8;  // pairs of half a warp, and neighbours on a diagonal, lie in different banks
  SharedTile<T> sQ, sG, sK, sV;
  float* sums;  // rows of kSumLd, in the place of the tiles
  BiasPart<kKeys> bias;
  char* end;

  VDIFF_HOST_DEVICE LongBiasMemory(char* base, int warps, int64_t D)
      : sQ{reinterpret_cast<T*>(base + BiasPart<kKeys>::bytes(true)), row_elements<T>(D)},
        sG{sQ.row(kWarpRows * warps), sQ.ld},
        sK{sG.row(kWarpRows * warps), sQ.ld},
        sV{sK.row(kKeys), sQ.ld},
        sums(reinterpret_cast<float*>(sQ.data)),
        bias{base},
        end(reinterpret_cast<char*>(sV.row(kKeys))) {
    char* const end_of_sums = reinterpret_cast<char*>(entries(warps) + kWarpRows * warps + kKeys);
    if (end_of_sums > end) end = end_of_sums;
  }

  // After the sums: of each row, then of each column.
  VDIFF_HOST_DEVICE int* entries(int warps) const { return reinterpret_cast<int*>(sums + kWarpRows * warps * kSumLd); }
};

constexpr int kMergeThreads = 256;   // of long_merge
constexpr int kReduceThreads = 128;  // of bias_sum
constexpr int kRotaryThreads = 128;  // of rotary_table

}  // namespace vdiff::attention
