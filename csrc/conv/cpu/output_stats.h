// The channel statistics of a convolution's outputs, for the norm after it: of a tile's as soon as they are written, while they
// are in its processor's cache, then of each frame's. No torch, no STL.
//
//   scratch  (mean, sum of squared deviations) x Co in double for every row of every strip (tiles.h)
//   order    that of strips and rows: set by the sizes alone
#pragma once

#include "common/cpu/statistics.h"
#include "conv/cpu/tiles.h"

namespace vdiff {
inline namespace VDIFF_ISA {

template <class T>
class OutputStats {
 public:
  // Of out (B, T, H, W, Co), contiguous; stats (B, T, Co, 2) acc, null: not wanted.
  OutputStats(const ConvSizes& s, const Tiling& tiling, const void* out, void* stats)
      : s_(s),
        tiling_(tiling),
        out_(static_cast<const T*>(out)),
        stats_(static_cast<acc_t<T>*>(stats)),
        strips_(stats ? tiling.planes() * tiling.strips() * tiling.rows() * 2 * s.Co : 0) {}

  void take(const OutputTile& tile) {
    if (!stats_) return;
    Scratch<double> run(2 * s_.Co);
    for (int64_t i = tile.first; i < tile.first + tile.count; ++i) {
      const Unit unit = tiling_.unit(i);
      for (int64_t row = unit.row; row < unit.row + tiling_.unit_rows() && tiling_.has_row(row); ++row) row_stats(unit, row, run);
    }
  }

  // After every tile.
  void finish() {
    if (!stats_) return;
    const int64_t strips = tiling_.strips(), rows = s_.temporal ? 1 : tiling_.rows();
    parallel_for(0, s_.B * s_.T, 8 * strips * rows * s_.Co, [&](int64_t frame) {
      const int64_t plane = s_.temporal ? frame / s_.T : frame, first_row = s_.temporal ? frame % s_.T : 0;
      Scratch<double> total(2 * s_.Co);
      total.zero(2 * s_.Co);
      int64_t count = 0;
      for (int64_t strip = 0; strip < strips; ++strip)
        for (int64_t row = first_row; row < first_row + rows; ++row) {
          const Unit unit{plane, strip * tiling_.columns(), row};
          const int64_t columns = tiling_.end(unit, 0);
          const double* part = at(plane, strip, row);
          merge_stats(total, total + s_.Co, count, part, part + s_.Co, columns, s_.Co);
          count += columns;
        }
      store_stats(total.get(), total + s_.Co, count, s_.Co, stats_ + frame * s_.Co * 2);
    });
  }

 private:
  double* at(int64_t plane, int64_t strip, int64_t row) {
    return strips_ + ((plane * tiling_.strips() + strip) * tiling_.rows() + row) * 2 * s_.Co;
  }

  void row_stats(const Unit& unit, int64_t row, double* run) {
    double* mean = at(unit.plane, tiling_.strip(unit), row);
    const Pixel pixel = tiling_.pixel(unit, row, 0);
    const T* out = out_ + (((pixel.b * s_.T + pixel.t) * s_.H + pixel.h) * s_.W + pixel.w) * s_.Co;
    pixel_stats<T>(tiling_.end(unit, 0), s_.Co, [&](int64_t i) { return out + i * s_.Co; }, mean, mean + s_.Co, run);
  }

  const ConvSizes& s_;
  const Tiling& tiling_;
  const T* out_;
  acc_t<T>* stats_;
  Scratch<double> strips_;  // (planes, strips, rows, 2, Co)
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
