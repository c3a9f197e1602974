// The matrix products of the CPU attention: tiles of sums in registers, made of broadcast elements times vectors.
//
//   sum[r][v] += sum_k a[r][k] * b[k][v]      r rows by v vectors: 8 x 1, 6 x 2 or 4 x 2, 4 x 3: at least the 8 sums that hide
//                                             the latency of two multipliers, and with their operands at most 16 registers
//
// Tiles may reach past the last row; what they hold there is nobody's.
#pragma once

#include "common/cpu/simd.h"
#include "common/scalar.h"

namespace vdiff {
inline namespace VDIFF_ISA {

constexpr int64_t kMaxTileRows = 8, kMaxTileVectors = 3;

template <class A, int64_t kRows, int64_t kVectors>
struct RegisterTile {
  using V = Vec<A>;

  V sum[kRows][kVectors];

  // body(sum, r, v) for each.
  template <class Body>
  [[gnu::always_inline]] void each(const Body& body) {
#pragma GCC unroll 8
    for (int64_t r = 0; r < kRows; ++r)
#pragma GCC unroll 3
      for (int64_t v = 0; v < kVectors; ++v) body(sum[r][v], r, v);
  }

  [[gnu::always_inline]] void zero() {
    each([](V& value, int64_t, int64_t) { value = V{}; });
  }

  // Element k of row r at a + r * row + k * step, the rows from `have` on as the last; of b, vectors at b + k * stride.
  [[gnu::always_inline]] void add(
      const A* a, int64_t row, int64_t step, const A* b, int64_t stride, int64_t count, int64_t have = kRows) {
    const A* rows[kRows];
#pragma GCC unroll 8
    for (int64_t r = 0; r < kRows; ++r) rows[r] = a + min_of(r, have - 1) * row;
#pragma GCC unroll 4
    for (int64_t k = 0, at = 0; k < count; ++k, at += step, b += stride) {
      V part[kVectors];
#pragma GCC unroll 3
      for (int64_t v = 0; v < kVectors; ++v) part[v] = load_vector(b + v * kLanes<A>);
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRows; ++r) {
        const V factor = splat(rows[r][at]);
#pragma GCC unroll 3
        for (int64_t v = 0; v < kVectors; ++v) sum[r][v] += factor * part[v];
      }
    }
  }

  // The same, leaving out what is multiplied by 0, whatever b holds there.
  void add_nonzero(
      const A* a, int64_t row, int64_t step, const A* b, int64_t stride, int64_t count, int64_t have = kRows) {
    for (int64_t k = 0; k < count; ++k, b += stride)
      for (int64_t r = 0; r < min_of(kRows, have); ++r) {
        const A factor = a[r * row + k * step];
        if (factor == 0) continue;
        for (int64_t v = 0; v < kVectors; ++v) sum[r][v] += factor * load_vector(b + v * kLanes<A>);
      }
  }
};

template <int64_t value>
struct Constant {
  static constexpr int64_t kValue = value;
};

// body(how many, first) on vectors of tiles that cover all of them.
template <class Body>
[[gnu::always_inline]] inline void for_vector_tiles(int64_t vectors, const Body& body) {
  int64_t first = 0;
  for (; vectors - first > 3 || vectors - first == 2; first += 2) body(Constant<2>{}, first);
  if (vectors - first == 3) return body(Constant<3>{}, first);
  if (vectors - first == 1) body(Constant<1>{}, first);
}

// body(how many, first) on rows of tiles of kVectors that cover `count`.
template <int64_t kVectors, class Body>
[[gnu::always_inline]] inline void for_row_tiles(int64_t count, const Body& body) {
  int64_t first = 0;
  if constexpr (kVectors == 2) {
    const int64_t tiles = ceil_div(count, 6), fours = min_of(tiles, (6 * tiles - count) / 2);
    for (; first < 6 * (tiles - fours); first += 6) body(Constant<6>{}, first);
  }
  constexpr int64_t kRows = kVectors == 1 ? 8 : 4;
  for (; first < count; first += kRows) body(Constant<kRows>{}, first);
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
