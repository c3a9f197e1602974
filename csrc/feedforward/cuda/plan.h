// How geglu runs on a GPU, decided here alone, by the shape alone: how products are cut into tiles and sums into parts, and what
// scratch there is. Results are the same on every GPU, and none is asked. No CUDA header, no torch, no STL.
#pragma once

#include "common/cuda/product_plan.h"
#include "feedforward/params.h"

namespace vdiff::feedforward {

using product::ProductPlan;
using product::SumPlan;
using product::TileGrid;

constexpr int kGatedColumns = product::kTileColumns / 2;  // of a tile: as many of a, and of b
constexpr int kHalfColumns = product::kWarpColumns / 2;   // of a warp's

inline TileGrid gated_tiles(int64_t M, int64_t E) { return product::tiles_of(M, E, kGatedColumns); }

struct GegluFwdPlan {
  TileGrid tiles;
  LaunchShape shape;
};

inline GegluFwdPlan fwd_plan(const GegluParams& p) {
  const TileGrid tiles = gated_tiles(p.M, p.E);
  return {tiles, product::shape_of(tiles.count())};
}

// ----------------------------------------------------------------------------------------------------------------- backward

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
  plan.half = product::whole_chunks(p.E);
  plan.tiles = gated_tiles(p.M, p.E);
  plan.gates = product::shape_of(plan.tiles.count());
  if (p.dbias != nullptr) plan.dbias = product::sum_plan(plan.tiles.down, 2 * p.E);
  plan.dx = product::product_plan(p.M, p.M, p.C, 2 * plan.half);
  plan.dweight = product::product_plan(2 * plan.half, 2 * p.E, p.C, p.M);
  plan.dab_bytes = p.M * 2 * plan.half * element_bytes(p.dtype);
  int64_t floats = 0;
  for (const SumPlan* sum : {&plan.dbias, &plan.dx.sum, &plan.dweight.sum}) floats = max_of(floats, sum->tables * sum->entries);
  plan.scratch_bytes = plan.dab_bytes + floats * int64_t(sizeof(float));
  return plan;
}

}  // namespace vdiff::feedforward
