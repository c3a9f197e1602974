// What the convolutions' products are told. For .cu files. No torch.
#pragma once

#include "conv/cuda/planes.h"

namespace vdiff::convolution {

// (taps, rows, K): rows along K of whole pieces. In elements, from tap to tap as the product goes over them: to the next column, to
// the next line's first, and to the next chunk's first of all.
struct PackedWeight {
  const void* data;
  int64_t stride_row, next_column, next_line, next_chunk;

  PackedWeight(const void* data, int64_t row, int64_t tap_line, int64_t tap_column, int across, int chunk)
      : data(data), stride_row(row), next_column(tap_column), next_line(tap_line - (across - 1) * tap_column),
        next_chunk(chunk - 2 * tap_line - (across - 1) * tap_column) {}
};

enum class Result { Out, OutAndStats, Dot };

struct ConvCall {
  PackedWeight weight;
  Planes x;
  Prologue prologue;
  const float* bias;  // (Co,), or null, like the next two
  const float* temb;  // (frames, Co)
  const float* mix;   // (frames,)
  Planes other;       // the residual; of a dot, the gradient; of du, x
  Planes out;
  Prologue back;      // of du: the norm and activation that the gradient goes back through
  // Of all planes' tiles. Stats: (tiles, Co, 2); dot: (tiles, tiles of Co, lines of a tile); du: (tiles, 2, Co), null without norm.
  float* partials;
  int Ci, Co;
  Tiling tiling;
  TileGrid grid;
};

// Of the gradient of the weight.
struct WeightCall {
  Planes x, grad;
  Prologue of_x, of_grad;
  float* parts;  // (parts, taps, Co, columns)
  int Ci, Co, columns, planes;
  Tiling tiling;
  TileGrid grid;
  int part;  // tiles of pixels of one
};

}  // namespace vdiff::convolution
