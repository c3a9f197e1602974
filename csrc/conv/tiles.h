// The tiles that a convolution is computed in: 1x3x3 over a band of rows of a frame, 3x1x1 over a block of pixels of a clip,
// and one picture for both. No torch, no STL.
//
//            rows             columns              taps      operand: what a tile's outputs read
//   1x3x3    rows of a band   W                    3 x 3     (rows + 2) x (W + 2) pixels of h
//   3x1x1    T                pixels of a block    3 x 1     (T + 2) x pixels
//
// Padding is zeros in the operand. Output (row, column) under tap (i, j) reads operand pixel (row + i, column + j), so for a
// tap row i the taps j and the channels are one run of memory: one product of depth taps * channels.
// How a tile is cut never changes a value: an output sums the same products in the same order in any tile.
#pragma once

#include "common/gemm.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "conv/params.h"

namespace vdiff {
inline namespace VDIFF_ISA {

constexpr int64_t kTapRows = 3;
constexpr int64_t kTileElements = 1 << 16;  // of an operand, about: 256 KiB of float
constexpr int64_t kTilesWanted = 32;        // at least so many where the sizes allow, to occupy the threads

struct Pixel {
  int64_t b, t, h, w;
};

struct Tile {
  int64_t b, t, start;  // start: first row of the band, or first pixel of the block
  int64_t rows, columns;
  int64_t tap_columns;  // 3 or 1

  int64_t operand_columns() const { return columns + tap_columns - 1; }
  int64_t operand_pixels() const { return (rows + kTapRows - 1) * operand_columns(); }

  // The pixel of output (row, column); row and column may be -1 or one too many. False where that is padding.
  bool locate(const ConvSizes& s, int64_t row, int64_t column, Pixel& pixel) const {
    pixel = s.temporal ? Pixel{b, row, (start + column) / s.W, (start + column) % s.W} : Pixel{b, t, start + row, column};
    return pixel.t >= 0 && pixel.t < s.T && pixel.h >= 0 && pixel.h < s.H && pixel.w >= 0 && pixel.w < s.W;
  }
};

class Tiles {
 public:
  // For operands of C channels.
  Tiles(const ConvSizes& sizes, int64_t C) : s_(sizes) {
    const int64_t line = s_.temporal ? s_.T + 2 : s_.W + 2;  // operand pixels per pixel of a block, or row of a band
    const int64_t least = s_.temporal ? 8 : 4;
    length_ = s_.temporal ? s_.H * s_.W : s_.H;
    parts_ = s_.temporal ? s_.B : s_.B * s_.T;
    const int64_t fitting = kTileElements / max_of<int64_t>(1, line * C);
    const int64_t sharing = ceil_div(parts_ * length_, kTilesWanted);
    extent_ = max_of(least, min_of(fitting, sharing) / 4 * 4);
    per_part_ = ceil_div(length_, extent_);
  }

  int64_t count() const { return parts_ * per_part_; }

  Tile operator[](int64_t i) const {
    const int64_t part = i / per_part_, start = i % per_part_ * extent_;
    const int64_t extent = min_of(extent_, length_ - start);
    return s_.temporal ? Tile{part, 0, start, s_.T, extent, 1} : Tile{part / s_.T, part % s_.T, start, extent, s_.W, 3};
  }

 private:
  const ConvSizes& s_;
  int64_t parts_;     // frames, or clips
  int64_t length_;    // rows of a frame, or pixels of a clip
  int64_t extent_;    // of a tile
  int64_t per_part_;  // tiles
};

// operand (operand_pixels, C): fill(pixel, row of C) inside the image, zeros in the padding.
template <class acc, class Fill>
void fill_operand(const ConvSizes& s, const Tile& tile, int64_t C, const Fill& fill, acc* operand) {
  const int64_t margin = tile.tap_columns / 2;
  for (int64_t row = -1; row <= tile.rows; ++row) {
    for (int64_t column = -margin; column < tile.columns + margin; ++column, operand += C) {
      Pixel pixel;
      if (tile.locate(s, row, column, pixel)) {
        fill(pixel, operand);
      } else {
        for (int64_t c = 0; c < C; ++c) operand[c] = 0;
      }
    }
  }
}

// The weight as the products' right side: (3 * tap_columns * in, out).
template <class T>
class PackedWeight {
 public:
  using acc = acc_t<T>;

  // transposed: for the gradient with respect to the operand, in and out exchange and every tap comes from the far side.
  PackedWeight(const ConvWeight& weight, const ConvSizes& s, bool transposed)
      : in_(transposed ? s.Co : s.Ci),
        out_(transposed ? s.Ci : s.Co),
        tap_columns_(s.temporal ? 1 : 3),
        panels_(kTapRows * tap_columns_ * in_, out_, transposed ? weight.stride_ci : weight.stride_co, [&](int64_t k) {
          const int64_t tap = k / in_;
          const int64_t row = transposed ? 2 - tap / tap_columns_ : tap / tap_columns_;
          const int64_t column = transposed ? tap_columns_ - 1 - tap % tap_columns_ : tap % tap_columns_;
          return static_cast<const T*>(weight.data) + row * weight.stride_row + column * weight.stride_column +
                 k % in_ * (transposed ? weight.stride_co : weight.stride_ci);
        }) {}

  int64_t in() const { return in_; }
  int64_t out() const { return out_; }

  // y (rows, columns, out) from the tile's operand.
  void apply(const Tile& tile, const acc* operand, acc* y) const {
    const int64_t line = tile.operand_columns() * in_;
    const auto row = [&](int64_t m) { return operand + m / tile.columns * line + m % tile.columns * in_; };
    const auto store = [&](int64_t m, int64_t n, Vec<acc> value, int64_t count) {
      store_part(y + m * out_ + n, value, count);
    };
    gemm<acc>(tile.rows * tile.columns, {kTapRows, tap_columns_ * in_, line, 1}, row, panels_, store);
  }

 private:
  int64_t in_, out_, tap_columns_;
  PackedPanels<acc> panels_;
};

// store(pixel, y of weight.out()) for every pixel, of the convolution of what fill(pixel, row of weight.in()) gives.
template <class T, class Fill, class Store>
void convolve(const ConvSizes& s, const PackedWeight<T>& weight, const Fill& fill, const Store& store) {
  const Tiles tiles(s, weight.in());
  parallel_for(0, tiles.count(), [&](int64_t i) {
    const Tile tile = tiles[i];
    Scratch<acc_t<T>> operand(tile.operand_pixels() * weight.in());
    Scratch<acc_t<T>> y(tile.rows * tile.columns * weight.out());
    fill_operand(s, tile, weight.in(), fill, operand.get());
    weight.apply(tile, operand, y);
    acc_t<T>* row_y = y;
    for (int64_t row = 0; row < tile.rows; ++row) {
      for (int64_t column = 0; column < tile.columns; ++column, row_y += weight.out()) {
        Pixel pixel;
        tile.locate(s, row, column, pixel);
        store(pixel, row_y);
      }
    }
  });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
