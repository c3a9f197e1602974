// How geglu runs on a GPU, decided here alone, by the shape alone: how products are cut into tiles and sums into parts, and what
// scratch there is. Results are the same on every GPU, and none is asked. No CUDA header, no torch, no STL.
#pragma once

#include "common/cuda/tile_shape.h"
#include "common/dispatch.h"
#include "feedforward/params.h"

namespace vdiff::feedforward {

using product::TileGrid;

constexpr int kGatedColumns = product::kTileColumns / 2;  // of a tile: as many of a, and of b
constexpr int kHalfColumns = product::kWarpColumns / 2;   // of a warp's

// body(IntTag<1>{}) where operands are moved by 16 bytes, IntTag<0> elsewhere.
template <class Body>
void dispatch_width(bool is_wide, const Body& body) {
  is_wide ? body(IntTag<1>{}) : body(IntTag<0>{});
}

inline TileGrid gated_tiles(int64_t M, int64_t E) {
  return {int(ceil_div(M, product::kTileRows)), int(ceil_div(E, kGatedColumns))};
}

inline LaunchShape shape_of(int64_t blocks) { return {blocks, product::kThreads, product::kSharedBytes}; }

struct GegluFwdPlan {
  TileGrid tiles;
  LaunchShape shape;
};

inline GegluFwdPlan fwd_plan(const GegluParams& p) {
  const TileGrid tiles = gated_tiles(p.M, p.E);
  return {tiles, shape_of(tiles.count())};
}

// ----------------------------------------------------------------------------------------------------------------- backward

// The sums of parts in order: each of `entries` is the sum of so many tables.
struct SumPlan {
  int64_t tables, entries;
  int slices;         // of the tables, a thread each
  LaunchShape shape;  // no blocks: there is nothing to add up
};

constexpr int kSumThreads = 256;

inline SumPlan sum_plan(int64_t tables, int64_t entries) {
  SumPlan plan = {tables, entries, 1, {}};
  while (plan.slices < 8 && 8 * plan.slices < tables) plan.slices *= 2;
  plan.shape = {ceil_div(entries, kSumThreads / plan.slices), kSumThreads, 0};
  return plan;
}

inline int64_t whole_chunks(int64_t k) { return ceil_div(k, product::kChunk<Half>) * product::kChunk<Half>; }  // of any dtype

// A product of (rows, K) by (K, columns), K cut into parts where its tiles are few.
struct ProductPlan {
  TileGrid tiles;
  int64_t part;  // k of a part
  LaunchShape shape;
  SumPlan sum;  // of the parts
};

inline ProductPlan product_plan(int64_t tile_rows, int64_t rows, int64_t columns, int64_t K) {
  constexpr int64_t kManyBlocks = 256, kSmallestPart = 256;
  ProductPlan plan{};
  plan.tiles = {int(ceil_div(tile_rows, product::kTileRows)), int(ceil_div(columns, product::kTileColumns))};
  const int64_t wanted = ceil_div(kManyBlocks, max_of<int64_t>(1, plan.tiles.count()));
  const int64_t parts = max_of<int64_t>(1, min_of(wanted, K / kSmallestPart));
  plan.part = max_of(kSmallestPart, whole_chunks(ceil_div(K, parts)));
  const int64_t there = max_of<int64_t>(1, ceil_div(K, plan.part));
  plan.shape = shape_of(plan.tiles.count() * there);
  if (there > 1) plan.sum = sum_plan(there, rows * columns);
  return plan;
}

// [da | db] in the scratch: of each row da, then db, `half` columns each: E, and zeros up to whole chunks of k.
struct GegluBwdPlan {
  int64_t half;
  TileGrid tiles;     // of [da | db]
  LaunchShape gates;  // what computes it
  SumPlan dbias;      // of the tiles of rows
  ProductPlan dx, dweight;
  int64_t dab_bytes;      // at the front of the scratch
  int64_t scratch_bytes;  // in all: behind [da | db] what is added up, one after the other in the same place
};

inline GegluBwdPlan bwd_plan(const GegluBackwardParams& p) {
  GegluBwdPlan plan{};
  plan.half = whole_chunks(p.E);
  plan.tiles = gated_tiles(p.M, p.E);
  plan.gates = shape_of(plan.tiles.count());
  if (p.dbias != nullptr) plan.dbias = sum_plan(plan.tiles.down, 2 * p.E);
  plan.dx = product_plan(p.M, p.M, p.C, 2 * plan.half);
  plan.dweight = product_plan(2 * plan.half, 2 * p.E, p.C, p.M);
  plan.dab_bytes = p.M * 2 * plan.half * element_bytes(p.dtype);
  int64_t floats = 0;
  for (const SumPlan* sum : {&plan.dbias, &plan.dx.sum, &plan.dweight.sum}) floats = max_of(floats, sum->tables * sum->entries);
  plan.scratch_bytes = plan.dab_bytes + floats * int64_t(sizeof(float));
  return plan;
}

}  // namespace vdiff::feedforward
