// How sums over the pixels of frames are cut into blocks, for plans. No CUDA header, no torch, no STL.
#pragma once

#include "common/cuda/launch_shape.h"
#include "common/cuda/shared_tile.h"
#include "common/dispatch.h"

namespace vdiff {

constexpr int kPixelSumThreads = 256;
constexpr int kPixelSumPieces = 8;   // of 16 bytes, whose sums over pixels a block has
constexpr int kPixelSumRun = 512;    // pixels of a frame that are a block's

// Of each frame and channel: tables (B, runs, T, C).
struct PixelSumsPlan {
  int64_t runs, tiles;  // of a frame, of its channels
  LaunchShape shape;    // no blocks: none is wanted
  int64_t floats;
};

template <class Sizes>
PixelSumsPlan pixel_sums_plan(const Sizes& s, int64_t C, DType dtype) {
  PixelSumsPlan plan{};
  plan.runs = ceil_div(s.H * s.W, kPixelSumRun);
  plan.tiles = ceil_div(C * element_bytes(dtype), kPieceBytes * kPixelSumPieces);
  plan.shape = {s.B * s.T * plan.runs * plan.tiles, kPixelSumThreads, 0};
  plan.floats = s.B * plan.runs * s.T * C;
  return plan;
}

}  // namespace vdiff
