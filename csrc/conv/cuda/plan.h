// How the convolutions run on a GPU, decided here alone, by the shape alone: tiles, launches, and what scratch there is. Results
// are the same on every GPU, and none is asked. No CUDA header, no torch, no STL.
#pragma once

#include "common/cuda/pixel_sums_plan.h"
#include "common/cuda/tile_shape.h"
#include "conv/params.h"
#include "norm/cuda_kernels.h"

namespace vdiff::convolution {

using product::TileGrid;

constexpr int kThreads = product::kThreads;
constexpr int kTilePixels = product::kTileRows;
constexpr int kHaloPixels = 192;  // of a tile with those around it
constexpr int64_t kHaloBytes = kHaloPixels * product::kChunkBytes;

// Both kernels see planes of lines: 1x3x3 each frame's, H lines of W columns, with three taps across; 3x1x1 each clip's, T lines of
// H*W columns, with one.
struct PlaneShape {
  int64_t planes;
  int lines, columns, across;

  int taps() const { return 3 * across; }
};

inline PlaneShape plane_shape(const ConvSizes& s) {
  if (s.temporal) return {s.B, int(s.T), int(s.H * s.W), 1};
  return {s.B * s.T, int(s.H), int(s.W), 3};
}

// body(IntTag<taps across>{}, IntTag<whether images are moved by 16 bytes>{})
template <class Body>
void dispatch_taps(int across, bool is_wide, const Body& body) {
  const auto of = [&](auto taps) { is_wide ? body(taps, IntTag<1>{}) : body(taps, IntTag<0>{}); };
  across == 3 ? of(IntTag<3>{}) : of(IntTag<1>{});
}

// A plane, cut into tiles of at most kTilePixels, kHaloPixels with their halo.
struct PlaneTiles {
  int lines, columns;  // of a tile
  int down, over;      // tiles

  VDIFF_HOST_DEVICE int count() const { return down * over; }
};

// The fewest tiles of so many pixels at most, with the smallest halo among those.
inline PlaneTiles plane_tiles(const PlaneShape& s, int pixels = kTilePixels) {
  PlaneTiles best{};
  int64_t best_cost = INT64_MAX;
  for (int width = min_of(s.columns, kHaloPixels / 3); width > 0; --width) {
    const int over = int(ceil_div(s.columns, width)), columns = int(ceil_div(s.columns, over));
    const int fit = min_of(pixels / columns, kHaloPixels / (columns + s.across - 1) - 2);
    if (fit < 1 || s.lines == 0) continue;
    const int down = int(ceil_div(s.lines, fit)), lines = int(ceil_div(s.lines, down));
    const int64_t halo = (lines + 2) * (columns + s.across - 1);
    const int64_t cost = int64_t(down) * over * kHaloPixels * 2 + halo;
    if (cost < best_cost) best = {lines, columns, down, over}, best_cost = cost;
  }
  return best;
}

// Places in the scratch, one after the other, each at an address that 16 divides.
struct Scratch {
  int64_t bytes = 0;

  int64_t take(int64_t more) {
    const int64_t at = bytes;
    bytes += ceil_div(more, 16) * 16;
    return at;
  }
};

// ---------------------------------------------------------------------------------------------------------------- weights

constexpr int kPackEdge = 32;  // channels in and out of what a block turns around

// The weight as (taps, rows, K) with K whole pieces, which the product reads: rows are channels out, and K channels in, or, for
// the gradient of x, the other way round, with the taps turned around.
struct PackPlan {
  int64_t K;
  int64_t bytes;
  LaunchShape shape;  // no blocks: the weight lies like that as it is
};

inline PackPlan pack_plan(const ConvSizes& s, DType dtype, int taps, bool turned) {
  const int64_t rows = turned ? s.Ci : s.Co, channels = turned ? s.Co : s.Ci, piece = 16 / element_bytes(dtype);
  PackPlan plan{};
  plan.K = ceil_div(channels, piece) * piece;
  plan.bytes = taps * rows * plan.K * element_bytes(dtype);
  plan.shape = {ceil_div(s.Co, kPackEdge) * ceil_div(s.Ci, kPackEdge), kThreads, 0};
  return plan;
}

// Whether each tap of the weight has rows of whole pieces along Ci.
inline bool is_packed(const ConvWeight& w, const ConvSizes& s, DType dtype) {
  const int64_t bytes = element_bytes(dtype);
  bool fits = w.stride_ci == 1 || s.Ci == 1;
  fits = fits && reinterpret_cast<uintptr_t>(w.data) % 16 == 0 && s.Ci * bytes % 16 == 0;
  for (const int64_t stride : {w.stride_co, w.stride_row, w.stride_column}) fits = fits && stride * bytes % 16 == 0;
  return fits;
}

// --------------------------------------------------------------------------------------------------------------- products

constexpr int64_t kConvBytes = 2 * kHaloBytes + product::kStages * product::kTileColumns * product::kChunkBytes;
static_assert(kConvBytes <= kSharedBytesOfAny);

struct ConvPlan {
  PlaneTiles tiles;
  TileGrid grid;  // down: the tiles of all planes, across: of the channels out
  LaunchShape shape;
};

inline ConvPlan conv_plan(const PlaneShape& s, int64_t channels_out) {
  ConvPlan plan{};
  plan.tiles = plane_tiles(s);
  plan.grid = {int(s.planes * plan.tiles.count()), int(ceil_div(channels_out, product::kTileColumns))};
  plan.shape = {plan.grid.count(), kThreads, kConvBytes};
  return plan;
}

constexpr int kSumThreads = 256;

// In front of a product: what h = act(norm(x)) takes, and the weight as it is read.
struct OperandPlan {
  NormNumbers norm;        // of a group norm, or of none
  bool is_activated;       // h is in memory: what normalises each pixel by itself comes first, in launches of its own
  int64_t at_table, at_norm, at_activated;
};

template <class Params>
NormActParams activation(const Params& p, void* h) {
  const ConvSizes& s = p.sizes;
  NormActParams norm{};
  norm.x = p.x, norm.out = h;
  norm.B = s.B, norm.T = s.T, norm.H = s.H, norm.W = s.W, norm.C = s.Ci;
  norm.stride_x = p.stride_x;
  norm.norm = p.norm;
  norm.dtype = p.dtype;
  return norm;
}

inline int64_t image_bytes(const ConvSizes& s, int64_t channels, DType dtype) {
  return s.B * s.T * s.H * s.W * channels * element_bytes(dtype);
}

template <class Params>
OperandPlan operand_plan(const Params& p, Scratch& scratch) {
  OperandPlan plan{};
  plan.is_activated = is_by_pixel(p.norm.kind);
  if (plan.is_activated) {
    plan.at_norm = scratch.take(norm_act_fwd_scratch(activation(p, nullptr)));
    plan.at_activated = scratch.take(image_bytes(p.sizes, p.sizes.Ci, p.dtype));
  } else {
    plan.norm = norm_numbers(activation(p, nullptr));
    plan.at_table = scratch.take(plan.norm.table_floats * int64_t(sizeof(float)));
  }
  return plan;
}

inline int64_t statistics_bytes(const ChannelStatsParams& p) {
  const int64_t chunks = channel_stats_chunks(p);
  return chunks > 1 ? p.B * p.T * chunks * p.C * 2 * int64_t(sizeof(float)) : 0;
}

struct FwdPlan {
  OperandPlan operand;
  PackPlan pack;
  ConvPlan conv;
  LaunchShape merge;         // of the tiles' statistics; no blocks: none are wanted, or a 3x1x1's
  ChannelStatsParams frames;  // of out, of a 3x1x1: its tiles have few pixels of a frame. B = 0: none are wanted
  int64_t at_weight, at_partials, scratch_bytes;
};

inline FwdPlan fwd_plan(const NormActConvParams& p) {
  FwdPlan plan{};
  Scratch scratch;
  const ConvSizes& s = p.sizes;
  const PlaneShape shape = plane_shape(s);
  plan.conv = conv_plan(shape, s.Co);
  if (plan.conv.shape.blocks > 0) {
    plan.operand = operand_plan(p, scratch);
    if (!is_packed(p.weight, s, p.dtype)) plan.pack = pack_plan(s, p.dtype, shape.taps(), false);
    plan.at_weight = scratch.take(plan.pack.bytes);
    if (p.out_stats && s.temporal) {
      plan.frames = {p.out, p.out_stats, s.B, s.T, s.H, s.W, s.Co, even_strides(s, s.Co), p.dtype};
      plan.at_partials = scratch.take(statistics_bytes(plan.frames));
    } else if (p.out_stats) {
      plan.at_partials = scratch.take(int64_t(plan.conv.grid.down) * s.Co * 2 * int64_t(sizeof(float)));
      plan.merge = {ceil_div(s.B * s.T * s.Co, kSumThreads), kSumThreads, 0};
    }
  }
  plan.scratch_bytes = scratch.bytes;
  return plan;
}

// ----------------------------------------------------------------------------------------------------------------- backward

// Of the weight's gradient: a block has kTileRows channels out by a chunk of channels in, at all taps, of a part of the pixels.
struct WeightPlan {
  PlaneTiles tiles;  // of pixels: so many are a step of the product
  TileGrid grid;     // down: of channels out, across: of channels in
  int part, parts;   // tiles of pixels of a part, of all planes'
  int64_t columns;   // of the parts' tables (taps, Co, columns): whole chunks
  LaunchShape shape, sum;
};

constexpr int64_t kGradientBytes = 32 << 10;  // of a tile of the gradient in shared memory
constexpr int64_t kWeightSharedBytes = 2 * (kGradientBytes + kHaloBytes) + kTilePixels * int64_t(sizeof(int));
static_assert(kWeightSharedBytes <= kLargestBlockBytes);

inline WeightPlan weight_plan(const PlaneShape& shape, const ConvSizes& s, DType dtype) {
  constexpr int64_t kManyBlocks = 128, kFewTiles = 4;
  WeightPlan plan{};
  const int64_t chunk = product::kChunkBytes / element_bytes(dtype);
  plan.tiles = plane_tiles(shape, int(kGradientBytes / product::kTileRows / element_bytes(dtype)));
  plan.grid = {int(ceil_div(s.Co, product::kTileRows)), int(ceil_div(s.Ci, chunk))};
  const int64_t count = shape.planes * plan.tiles.count();
  const int64_t wanted = min_of(ceil_div(kManyBlocks, plan.grid.count()), count / kFewTiles);
  plan.part = int(ceil_div(count, max_of<int64_t>(1, wanted)));
  plan.parts = int(ceil_div(count, max_of(1, plan.part)));
  plan.columns = plan.grid.across * chunk;
  plan.shape = {plan.grid.count() * plan.parts, kThreads, kWeightSharedBytes};
  plan.sum = {s.Co * ceil_div(s.Ci, kWarp), kWarp * shape.taps(), 0};
  return plan;
}

constexpr int kSlices = 8;  // of the frames, whose sums are added up

// How dx follows from the gradient of h: it is that; du comes with sums, in the product's epilogue, as far as the frames of a tile
// share a norm; or the norm's backward is all its own.
enum class Way { IsDh, ThroughDu, Apart };

inline Way way_of(const NormActConvBackwardParams& p) {
  if (p.norm.kind == NormKind::None) return p.norm.silu ? Way::ThroughDu : Way::IsDh;
  const bool is_shared = p.norm.kind == NormKind::Group && (!p.sizes.temporal || p.norm.clip);
  return is_shared ? Way::ThroughDu : Way::Apart;
}

struct BwdPlan {
  bool has_operand;  // h is wanted, or the table of its norm
  OperandPlan operand;
  PackPlan pack, turned;  // the weight for y, and for the gradient of h
  ConvPlan dot;           // grad y, where mix wants a gradient
  ConvPlan dh;
  Way way;
  NormActBackwardParams norm;
  WeightPlan dweight;
  PixelSumsPlan sums;  // of grad, for the gradients of bias and temb
  LaunchShape dmix, vectors;
  int64_t at_weight, at_turned, at_dots, at_dh, at_du_sums, at_norm, at_parts, at_sums, scratch_bytes;
};

inline BwdPlan bwd_plan(const NormActConvBackwardParams& p) {
  BwdPlan plan{};
  Scratch scratch;
  const ConvSizes& s = p.sizes;
  const PlaneShape shape = plane_shape(s);
  const int64_t floats = sizeof(float);
  const bool any = s.B * s.T * s.H * s.W > 0;
  plan.way = way_of(p);
  const bool wants_table = p.need_x && plan.way == Way::ThroughDu;
  plan.has_operand = any && (p.dmix || p.dweight || wants_table);
  if (plan.has_operand) plan.operand = operand_plan(p, scratch);
  if (any && p.dmix) {
    plan.dot = conv_plan(shape, s.Co);
    if (!is_packed(p.weight, s, p.dtype)) plan.pack = pack_plan(s, p.dtype, shape.taps(), false);
    plan.at_weight = scratch.take(plan.pack.bytes);
    plan.at_dots = scratch.take(plan.dot.grid.count() * plan.dot.tiles.lines * floats);
    plan.dmix = {s.B * s.T, kWarp, 0};
  }
  if (p.need_x) {
    if (any) plan.dh = conv_plan(shape, s.Ci);
    plan.turned = pack_plan(s, p.dtype, shape.taps(), true);
    plan.at_turned = scratch.take(plan.turned.bytes);
    const bool has_norm = p.norm.kind != NormKind::None;
    if (has_norm) {
      NormActBackwardParams& norm = plan.norm;
      norm.x = p.x, norm.dx = p.dx;
      norm.dweight = p.dnorm_weight, norm.dbias = p.dnorm_bias, norm.dscale = p.dscale, norm.dshift = p.dshift;
      norm.B = s.B, norm.T = s.T, norm.H = s.H, norm.W = s.W, norm.C = s.Ci;
      norm.stride_grad = even_strides(s, s.Ci);
      norm.stride_x = p.stride_x;
      norm.norm = p.norm;
      norm.dtype = p.dtype;
      plan.at_dh = scratch.take(image_bytes(s, s.Ci, p.dtype));
    }
    if (has_norm && plan.way == Way::ThroughDu) plan.at_du_sums = scratch.take(plan.dh.grid.down * 2 * s.Ci * floats);
    if (plan.way == Way::Apart) plan.at_norm = scratch.take(norm_act_bwd_scratch(plan.norm));
  }
  if (p.dweight) {
    plan.dweight = weight_plan(shape, s, p.dtype);
    plan.at_parts = scratch.take(plan.dweight.parts * shape.taps() * s.Co * plan.dweight.columns * floats);
  }
  if (p.dtemb || p.dbias) {
    plan.sums = pixel_sums_plan(s, s.Co, p.dtype);
    plan.at_sums = scratch.take(plan.sums.floats * floats);
    plan.vectors = {ceil_div(s.Co, kWarp), kSlices * kWarp, 0};
  }
  plan.scratch_bytes = scratch.bytes;
  return plan;
}

}  // namespace vdiff::convolution
