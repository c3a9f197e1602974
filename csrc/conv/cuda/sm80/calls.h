// What the convolutions' products are told. For .cu files. No torch.
#pragma once

#include "conv/cuda/planes.h"

namespace vdiff::convolution {

// (taps, rows, K): rows along K of whole pieces.
struct PackedWeight {
  const void* data;
  int64_t stride_tap_line, stride_tap_column, stride_row;
};

enum class Result { Out, OutAndStats, Dot };

struct ConvCall {
  Planes x;
  Prologue prologue;
  PackedWeight weight;
  const float* bias;  // (Co,), or null, like the next two
  const float* temb;  // (frames, Co)
  const float* mix;   // (frames,)
  Planes other;       // the residual; of a dot, the gradient
  Planes out;
  float* partials;  // stats: (planes, tiles, Co, 2); dot: (tiles of all planes, tiles of Co, lines of a tile)
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
