// How a convolution is cut: 1x3x3 over the rows of a frame, 3x1x1 over the frames of a clip, and one picture for both.
// No torch, no STL.
//
//            plane     rows   columns     a strip's columns     taps over rows x columns
//   1x3x3    a frame   H      W           all or a part         3 x 3
//   3x1x1    a clip    T      H * W       a part                3 x 1
//
// A unit is two rows of a strip, which are computed together (transform.h); the second is missing where rows are odd, and everywhere
// for a weight that is not transformed. A tile, the work of a task, is some units in a row, of several strips where these are small.
// A position is a column of a unit.
// How a tile is cut never changes a value: an output sums the same products in the same order in any tile.
#pragma once

#include "common/scalar.h"
#include "conv/params.h"

namespace vdiff {
inline namespace VDIFF_ISA {

constexpr int64_t kTileElements = 1 << 17;  // of a tile's transformed operand, about: 512 KiB of float
constexpr int64_t kTilePositions = 48;      // at least so many, that a panel of the weight serves some rows
constexpr int64_t kTilesWanted = 32;        // at least so many where the sizes allow, to occupy the threads

struct Pixel {
  int64_t b, t, h, w;
};

struct Unit {
  int64_t plane, first_column, row;
};

// Units [first, first + count).
struct OutputTile {
  int64_t first, count;
};

class Tiling {
 public:
  // For operands of C channels, and units of unit_rows rows.
  Tiling(const ConvSizes& sizes, int64_t C, int64_t unit_rows = 2)
      : s_(sizes),
        unit_rows_(unit_rows),
        rows_(s_.temporal ? s_.T : s_.H),
        across_(s_.temporal ? s_.H * s_.W : s_.W),
        planes_(s_.temporal ? s_.B : s_.B * s_.T),
        pairs_(ceil_div(rows_, unit_rows)) {
    const int64_t fitting = kTileElements / max_of<int64_t>(1, 4 * C * (s_.temporal ? pairs_ : 2));
    const int64_t sharing = s_.temporal ? ceil_div(planes_ * across_, kTilesWanted) : across_;
    const int64_t most = max_of<int64_t>(8, min_of(fitting, sharing));
    strips_ = max_of<int64_t>(1, ceil_div(across_, most));
    columns_ = ceil_div(across_, strips_);
    const int64_t elements = max_of<int64_t>(1, 4 * operand_columns() * C);
    const int64_t share = min_of(kTileElements / elements, ceil_div(units(), kTilesWanted));
    extent_ = max_of(share, ceil_div(kTilePositions, max_of<int64_t>(1, columns_)));
  }

  int64_t planes() const { return planes_; }
  int64_t rows() const { return rows_; }      // of a plane
  int64_t unit_rows() const { return unit_rows_; }
  int64_t strips() const { return strips_; }  // of a plane
  int64_t columns() const { return columns_; }  // of a strip; beyond the plane in the last one, perhaps
  int64_t margin() const { return s_.temporal ? 0 : 1; }
  int64_t operand_columns() const { return columns_ + 2 * margin(); }
  int64_t units() const { return planes_ * strips_ * pairs_; }
  int64_t largest() const { return min_of(extent_, units()); }  // units of a tile

  int64_t count() const { return columns_ ? ceil_div(units(), extent_) : 0; }
  OutputTile operator[](int64_t i) const { return {i * extent_, min_of(extent_, units() - i * extent_)}; }

  Unit unit(int64_t i) const {
    const int64_t strip = i / pairs_;
    return {strip / strips_, strip % strips_ * columns_, i % pairs_ * unit_rows_};
  }

  // Whether a row, which may be -1 or one too many, lies in the plane.
  bool has_row(int64_t row) const { return row >= 0 && row < rows_; }
  // The columns of the unit's strip that lie in the plane are those from begin to end; of its operand, too, from -margin on.
  int64_t begin(const Unit& unit) const { return max_of(-margin(), -unit.first_column); }
  int64_t end(const Unit& unit, int64_t margin) const { return min_of(columns_ + margin, across_ - unit.first_column); }

  int64_t strip(const Unit& unit) const { return unit.first_column / columns_; }

  Pixel pixel(const Unit& unit, int64_t row, int64_t column) const {
    column += unit.first_column;
    return s_.temporal ? Pixel{unit.plane, row, column / s_.W, column % s_.W}
                       : Pixel{unit.plane / s_.T, unit.plane % s_.T, row, column};
  }
  // To the next column, and to the next row.
  void step_column(Pixel& pixel) const {
    if (++pixel.w == s_.W && s_.temporal) pixel.w = 0, ++pixel.h;
  }
  Pixel below(Pixel pixel) const {
    ++(s_.temporal ? pixel.t : pixel.h);
    return pixel;
  }

 private:
  const ConvSizes& s_;
  int64_t unit_rows_;
  int64_t rows_, across_, planes_, pairs_;  // pairs_: units along the rows
  int64_t strips_, columns_;  // of a plane, of a strip
  int64_t extent_;            // units of a tile
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
