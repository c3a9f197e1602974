// How a matrix product is cut into tiles, and its k into parts whose sums are added up in order: decided by the shape alone, for
// plans. No CUDA header, no torch, no STL.
#pragma once

#include "common/cuda/tile_shape.h"
#include "common/dispatch.h"

namespace vdiff::product {

// body(IntTag<1>{}) where operands are moved by 16 bytes, IntTag<0> elsewhere.
template <class Body>
void dispatch_width(bool is_wide, const Body& body) {
  is_wide ? body(IntTag<1>{}) : body(IntTag<0>{});
}

// Of kernels that have a tile a block.
inline LaunchShape shape_of(int64_t blocks) { return {blocks, kThreads, kSharedBytes}; }

inline TileGrid tiles_of(int64_t rows, int64_t columns, int tile_columns = kTileColumns) {
  return {int(ceil_div(rows, kTileRows)), int(ceil_div(columns, tile_columns))};
}

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

inline int64_t whole_chunks(int64_t k) { return ceil_div(k, kChunk<Half>) * kChunk<Half>; }  // of any dtype

// A product of (tile_rows, K) by (K, columns), of which `rows` rows are a result; K is cut into parts where its tiles are few.
struct ProductPlan {
  TileGrid tiles;
  int64_t part, span;  // k of a part, and of a span, of which there are several where no part may go from one to the next
  int parts_of_span;
  LaunchShape shape;
  SumPlan sum;  // of the parts; no blocks where there is but one
};

inline ProductPlan product_plan(int64_t tile_rows, int64_t rows, int64_t columns, int64_t span, int64_t spans = 1) {
  constexpr int64_t kManyBlocks = 256, kSmallestPart = 256;
  ProductPlan plan{};
  plan.tiles = tiles_of(tile_rows, columns);
  const int64_t wanted = ceil_div(kManyBlocks, max_of<int64_t>(1, plan.tiles.count() * spans));
  const int64_t parts = max_of<int64_t>(1, min_of(wanted, span / kSmallestPart));
  plan.part = max_of(kSmallestPart, whole_chunks(ceil_div(span, parts)));
  plan.span = span;
  plan.parts_of_span = int(max_of<int64_t>(1, ceil_div(span, plan.part)));
  const int64_t all = plan.parts_of_span * spans;
  plan.shape = shape_of(plan.tiles.count() * all);
  if (all > 1) plan.sum = sum_plan(all, rows * columns);
  return plan;
}

}  // namespace vdiff::product
