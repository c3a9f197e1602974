// How norms run on a GPU, decided here alone, by the shape alone: by which kernels, how frames and channels are cut into blocks,
// and what scratch there is. No CUDA header, no torch, no STL.
#pragma once

#include "common/cuda/launch_shape.h"
#include "common/cuda/shared_tile.h"
#include "common/dispatch.h"
#include "norm/cuda_kernels.h"
#include "norm/params.h"

namespace vdiff {

inline int64_t pieces_of(int64_t C, DType dtype) { return ceil_div(C * element_bytes(dtype), kPieceBytes); }

// The pieces of a row that neighbouring threads have: a power of two, up to a line of memory.
inline int columns_of(int64_t pieces) {
  constexpr int kLinePieces = 8;
  int columns = 1;
  while (columns < pieces && columns < kLinePieces) columns *= 2;
  return columns;
}

namespace statistics {

constexpr int kThreads = 256;
constexpr int kChunkPixels = 1024;

struct Plan {
  int64_t chunks;     // of a frame, 1 or more; several have partials (B*T, chunks, C, 2) acc in the scratch
  int columns;        // pieces of a tile
  int64_t tiles;      // of a frame's channels
  LaunchShape stats;  // static shared memory alone
  LaunchShape merge;  // no blocks: there is one chunk
};

inline Plan plan_of(const ChannelStatsParams& p) {
  Plan plan{};
  const int64_t frames = p.B * p.T, pieces = pieces_of(p.C, p.dtype);
  plan.chunks = max_of<int64_t>(1, ceil_div(p.H * p.W, kChunkPixels));
  plan.columns = columns_of(pieces);
  plan.tiles = ceil_div(pieces, plan.columns);
  plan.stats = {frames * plan.chunks * plan.tiles, kThreads, 0};
  if (plan.chunks > 1) plan.merge = {ceil_div(frames * p.C, kThreads), kThreads, 0};
  return plan;
}

}  // namespace statistics

namespace norms {

constexpr int kThreads = 256;
constexpr int kFwdPieces = 5;            // of a pixel that a thread of its team holds
constexpr int64_t kMaxChannels = kMaxPixelChannels;  // of kThreads threads, in any dtype and direction
constexpr int kFwdPixels = 8;            // of a run that a thread goes over
constexpr int kSumPixels = 16;           // the same, where it sums them
constexpr int kRunPixels = 256;          // of a run that a block has with all of their channels, backward
constexpr int kSmallGroup = 4 * kWarp;   // channels' statistics that are left to a warp
constexpr int kSlices = 16;              // into which the runs are cut whose sums are the parameters' gradients

// Pieces of a pixel that a thread of its team holds backward, with their sums: as many as leave two blocks a multiprocessor.
template <int kElementBytes>
constexpr int kBwdPieces = kElementBytes == 2 ? 3 : 4;

// A cut of frames into blocks: of a run of pixels, and of a tile of pieces of their channels.
struct Cut {
  int tiles, columns;  // so many tiles, of `columns` pieces; of a pixel's team, `columns` threads
  int run, runs;       // so many runs of a frame, of `run` pixels
};

struct Launch {
  Cut cut;
  LaunchShape shape;
};

struct TablePlan {
  int64_t rows, floats;
  int width, frames_of_row, rows_of_clip;
  LaunchShape shape;  // no blocks: there is no norm
};

struct FwdPlan {
  TablePlan table;
  Launch out;
  int64_t scratch_bytes;
};

// In the scratch: the table, then the sums.
struct BwdPlan {
  TablePlan table;
  Launch sums;            // no blocks: not of a group norm
  LaunchShape of_groups;  // no blocks: the same
  Launch dx;
  int64_t runs;            // of which there are sums; 0: of none
  LaunchShape parameters;  // no blocks: none is wanted
  int64_t scratch_bytes;
};

inline TablePlan table_plan(const NormParams& norm, int64_t B, int64_t T, int64_t C) {
  TablePlan plan{};
  const bool is_group = norm.kind == NormKind::Group, by_frame = is_group && !norm.clip;
  plan.frames_of_row = int(by_frame ? 1 : T);
  plan.rows_of_clip = int(by_frame ? T : 1);
  plan.width = int(is_group ? C / norm.groups : C);
  if (norm.kind == NormKind::None || B * T * C == 0) return plan;
  plan.rows = B * plan.rows_of_clip;
  plan.floats = ceil_div(plan.rows * kFields * C, 4) * 4;
  const bool is_small = int64_t(plan.frames_of_row) * plan.width <= kSmallGroup;
  plan.shape = {plan.rows * (C / plan.width), is_small ? kWarp : kThreads, 0};
  return plan;
}

// Of pixels and tiles of channels. pixels: of a thread.
template <class Params>
Launch by_channel(const Params& p, int pixels) {
  const int64_t pieces = pieces_of(p.C, p.dtype);
  Launch launch{};
  Cut& cut = launch.cut;
  cut.columns = columns_of(pieces);
  cut.tiles = int(ceil_div(pieces, cut.columns));
  cut.run = kThreads / cut.columns * pixels;
  cut.runs = int(ceil_div(p.H * p.W, cut.run));
  launch.shape = {p.B * p.T * cut.runs * cut.tiles, kThreads, 0};
  return launch;
}

// The threads that have a pixel of all channels, of which each holds so many pieces.
inline int team_of(int64_t pieces, int held) {
  int team = columns_of(pieces);
  while (int64_t(team) * held < pieces) team *= 2;
  return team;
}

inline FwdPlan fwd_plan(const NormActParams& p) {
  FwdPlan plan{};
  plan.table = table_plan(p.norm, p.B, p.T, p.C);
  plan.scratch_bytes = plan.table.floats * int64_t(sizeof(float));
  if (is_by_pixel(p.norm.kind)) {
    const int team = team_of(pieces_of(p.C, p.dtype), kFwdPieces);
    plan.out.cut.columns = team;
    plan.out.shape = {p.C == 0 ? 0 : ceil_div(p.B * p.T * p.H * p.W, kThreads / team), kThreads, 0};
  } else {
    plan.out = by_channel(p, kFwdPixels);
  }
  return plan;
}

inline bool wants_parameters(const NormActBackwardParams& p) { return p.dweight || p.dbias || p.dscale || p.dshift; }

inline BwdPlan bwd_plan(const NormActBackwardParams& p) {
  BwdPlan plan{};
  const bool is_empty = p.B * p.T * p.H * p.W * p.C == 0, wanted = wants_parameters(p);
  const int64_t channels = kPieceBytes / element_bytes(p.dtype);  // of a piece
  const int64_t sums_bytes = kThreads * 2 * channels * int64_t(sizeof(float));
  plan.table = table_plan(p.norm, p.B, p.T, p.C);
  plan.dx = by_channel(p, kFwdPixels);
  if (is_by_pixel(p.norm.kind)) {
    const int held = p.dtype == DType::Float32 ? kBwdPieces<4> : kBwdPieces<2>;
    const int team = team_of(pieces_of(p.C, p.dtype), held);
    plan.dx.cut = {1, team, kRunPixels, int(ceil_div(p.H * p.W, kRunPixels))};
    plan.dx.shape = {p.B * p.T * plan.dx.cut.runs, kThreads, wanted ? sums_bytes : 0};
    plan.runs = wanted ? plan.dx.cut.runs : 0;
  } else if (p.norm.kind == NormKind::Group && !is_empty) {
    plan.sums = by_channel(p, kSumPixels);
    plan.sums.shape.shared_bytes = sums_bytes;
    plan.runs = plan.sums.cut.runs;
    plan.of_groups = {plan.table.rows * p.norm.groups, plan.table.shape.threads, 0};
  }
  if (is_empty) plan.dx.shape.blocks = plan.table.shape.blocks = plan.runs = 0;
  if (wanted) plan.parameters = {ceil_div(p.C, kWarp), kSlices * kWarp, 0};
  plan.scratch_bytes = (plan.table.floats + p.B * p.T * plan.runs * 2 * p.C) * int64_t(sizeof(float));
  return plan;
}

}  // namespace norms
}  // namespace vdiff
