// The tile of a matrix product that a block computes on tensor cores: for plans, and for tile_product.cuh. No CUDA header, no
// torch, no STL.
#pragma once

#include <cstdint>

#include "common/cuda/launch_shape.h"
#include "common/cuda/shared_tile.h"

namespace vdiff::product {

constexpr int kTileRows = 128, kTileColumns = 128;  // of a block
constexpr int kWarpRows = 32, kWarpColumns = 64;    // of a warp
constexpr int kWarpsDown = kTileRows / kWarpRows, kWarpsAcross = kTileColumns / kWarpColumns;
constexpr int kWarps = kWarpsDown * kWarpsAcross, kThreads = kWarps * kWarp;

constexpr int kStages = 3;       // chunks of k in shared memory, of which one is in use and the others are on their way
constexpr int kChunkBytes = 64;  // of a row
template <class T>
constexpr int kChunk = kChunkBytes / sizeof(T);

constexpr int64_t kStageBytes = (kTileRows + kTileColumns) * kChunkBytes;
constexpr int64_t kSharedBytes = kStages * kStageBytes;

// The widest copy of 16 bytes, 4 or one element that goes by whole parts over rows of so many columns that lie there.
inline int copy_bytes(const void* rows, int64_t count, int64_t stride, int64_t columns, int element_bytes) {
  for (int bytes = 16; bytes > element_bytes; bytes /= 4) {
    const bool fits = reinterpret_cast<uintptr_t>(rows) % bytes == 0 && (count <= 1 || stride * element_bytes % bytes == 0);
    if (fits && columns * element_bytes % bytes == 0) return bytes;
  }
  return element_bytes;
}

// Tiles of a product. Blocks take kGroup tiles of rows before they go on to the next columns, so that those at work at once share
// both in L2.
struct TileGrid {
  int down, across;

  static constexpr int kGroup = 8;
  struct Place {
    int down, across;
  };

  VDIFF_HOST_DEVICE int64_t count() const { return int64_t(down) * across; }

  VDIFF_HOST_DEVICE Place place(int i) const {
    const int first = i / (kGroup * across) * kGroup, within = i % (kGroup * across);
    const int group = down - first < kGroup ? down - first : kGroup;
    return {first + within % group, within / group};
  }
};

}  // namespace vdiff::product
