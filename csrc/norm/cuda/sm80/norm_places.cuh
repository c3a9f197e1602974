// What the kernels of norm_act share: which pixels and channels are whose.
#pragma once

#include "common/cuda/activation.cuh"
#include "common/cuda/pieces.cuh"
#include "common/cuda/team.cuh"
#include "norm/cuda/images.h"
#include "norm/cuda/plan.h"

namespace vdiff::norms {

// A block that has a tile of pieces of a run of a frame's pixels, `rows` pixels at a time: thread = row * columns + column.
template <class T>
struct ChannelPlace {
  int frame, run, row, rows;
  int first, end;  // this thread's first pixel, and where its run ends
  int c;         // its first channel
  int channels;  // from there on: none where they are 0 or less

  __device__ explicit ChannelPlace(const NormCall& p) {
    const int tile = blockIdx.x % p.cut.tiles, frame_run = blockIdx.x / p.cut.tiles;
    frame = frame_run / p.cut.runs;
    run = frame_run % p.cut.runs;
    row = threadIdx.x / p.cut.columns;
    rows = kThreads / p.cut.columns;
    first = run * p.cut.run + row;
    end = min(p.pixels, run * p.cut.run + p.cut.run);
    c = (tile * p.cut.columns + threadIdx.x % p.cut.columns) * kPiece<T>;
    channels = p.C - c;
  }
};

constexpr int kInFlight = 2;  // pixels of a thread, of which it loads both images before it computes any

// body(pixel, x, other) for each pixel of a thread, with its pieces of the images; zeros where the other is not there.
template <class T, bool kAligned, class Body>
__device__ void for_pixels(const NormCall& p, const ChannelPlace<T>& at, bool other_is_there, const Body& body) {
  const T* gX = p.x.frame<T>(at.frame, p.frames_of_clip) + at.c;
  const T* gOther = other_is_there ? p.other.frame<T>(at.frame, p.frames_of_clip) + at.c : nullptr;
  for (int first = at.first; first < at.end; first += kInFlight * at.rows) {
    uint4 rX[kInFlight] = {}, rOther[kInFlight] = {};
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const int pixel = first + k * at.rows;
      if (pixel >= at.end) continue;
      rX[k] = load_bits<T, kAligned>(gX + p.x.pixels.at(pixel), at.channels);
      if (other_is_there) rOther[k] = load_bits<T, kAligned>(gOther + p.other.pixels.at(pixel), at.channels);
    }
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const int pixel = first + k * at.rows;
      if (pixel < at.end) body(pixel, unpacked<T>(rX[k]), unpacked<T>(rOther[k]));
    }
  }
}

// A field of the table, of a piece whose first channel is c; `without` where there is no norm.
template <int kCount, bool kAligned>
__device__ void load_field(float (&to)[kCount], const NormCall& p, Field field, int frame, int c, float without) {
  if (p.table == nullptr) {
#pragma unroll
    for (float& one : to) one = without;
  } else {
    load_floats<kCount, kAligned>(to, p.field(field, frame) + c, p.C - c);
  }
}

// body(j, c) for each piece j of a thread, with its first channel; all threads of a team go as far as any of them has channels.
template <class T, int kPieces, class Body>
__device__ void for_pieces(const Team& team, int C, const Body& body) {
#pragma unroll
  for (int j = 0; j < kPieces; ++j) {
    if (j * team.size * kPiece<T> >= C) break;
    body(j, (j * team.size + team.rank) * kPiece<T>);
  }
}

// The pixel that a thread's team has to itself.
struct TeamPixel {
  Team team;
  int64_t index;  // of all pixels
  bool is_there;
  int frame, pixel;

  __device__ explicit TeamPixel(const NormCall& p) : team(this_team(p.cut.columns)) {
    index = int64_t(blockIdx.x) * (kThreads / p.cut.columns) + threadIdx.x / p.cut.columns;
    is_there = index < int64_t(p.frames) * p.pixels;
    frame = is_there ? int(divide(index, p.pixels)) : 0;
    pixel = int(index - int64_t(frame) * p.pixels);
  }
};

struct Moments {
  float mean, rstd;
};

// Of a pixel: a layer norm's, or an rms norm's, whose mean is 0. warps: 2 * kWarp floats of shared memory, as sum_of_team's.
template <class T, bool kAligned, int kPieces>
__device__ Moments moments_of_pixel(const uint4 (&rX)[kPieces], const Team& team, const NormCall& p, float* warps) {
  float sum = 0, squares = 0;
  if (p.centred) {
    for_pieces<T, kPieces>(team, p.C, [&](int j, int) {
      const Piece<T> x = unpacked<T>(rX[j]);
#pragma unroll
      for (const float one : x.value) sum += one;
    });
    sum = sum_of_team(sum, team, warps);
  }
  const float mean = sum / p.C;
  for_pieces<T, kPieces>(team, p.C, [&](int j, int c) {
    const Piece<T> x = unpacked<T>(rX[j]);
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i) {
      const float apart = x.value[i] - mean;
      if (c + (kAligned ? 0 : i) < p.C) squares += apart * apart;
    }
  });
  return {mean, 1 / sqrtf(sum_of_team(squares, team, warps + kWarp) / p.C + p.eps)};
}

}  // namespace vdiff::norms
