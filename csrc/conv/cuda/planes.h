// The convolutions as their CUDA kernels see them: images as planes of lines (plan.h), and what is done to a plane on its way in.
// For .cu files. No torch.
#pragma once

#include "common/cuda/row_line.h"
#include "conv/cuda/plan.h"

namespace vdiff::convolution {

// A (B, T, H, W, C) tensor, as planes of lines of pixels.
struct Planes {
  const void* data;  // null: there is none
  int64_t stride_clip, stride_plane, stride_line;
  int planes_of_clip;
  RowLine columns;
  int bytes;  // of one copy: 16, 4 or one element

  __host__ __device__ int64_t at(int plane) const {
    return plane / planes_of_clip * stride_clip + plane % planes_of_clip * stride_plane;
  }
  __host__ __device__ int64_t at(int line, int column) const { return line * stride_line + columns.at(column); }
};

// What becomes of x before the taps see it: act(norm(x)), or (1 - mix) x.
struct Prologue {
  const float* table;  // of a group norm (norm/cuda_kernels.h: Field); null: there is none
  const float* mix;    // (frames,), or null
  int frames_of_row;   // of the table
  bool silu;

  __host__ __device__ bool is_nothing() const { return table == nullptr && mix == nullptr && !silu; }
  __device__ const float* field(norms::Field which, int frame, int C) const {
    return table + (int64_t(frame / frames_of_row) * norms::kFields + which) * C;
  }
};

// The sizes and tiles of planes.
struct Tiling {
  int lines, columns;  // of a plane
  int frames_of_plane;  // 1, or of a clip: its lines
  PlaneTiles tiles;
  Divisor tile_columns, halo_columns;

  Tiling() = default;
  Tiling(const PlaneShape& s, const PlaneTiles& tiles)
      : lines(s.lines), columns(s.columns), frames_of_plane(s.across == 1 ? s.lines : 1), tiles(tiles),
        tile_columns(tiles.columns), halo_columns(tiles.columns + s.across - 1) {}

  __device__ int frame(int plane, int line) const { return plane * frames_of_plane + (frames_of_plane > 1 ? line : 0); }
};

// Where a tile begins.
struct TilePlace {
  int plane, line, column;

  __device__ TilePlace(const Tiling& p, int tile) {
    plane = tile / p.tiles.count();
    const int in_plane = tile - plane * p.tiles.count(), down = in_plane / p.tiles.over;
    line = down * p.tiles.lines;
    column = (in_plane - down * p.tiles.over) * p.tiles.columns;
  }
};

}  // namespace vdiff::convolution
