// A convolution from what fills its operand and what takes its outputs. No torch, no STL.
//
//   task     a tile (tiles.h)
//   scratch  the tile's transformed operand (units, 4, operand_columns, in), and four rows of it before;
//            products of kBlock positions
#pragma once

#include "common/cpu/parallel.h"
#include "conv/cpu/tiles.h"
#include "conv/cpu/transform.h"

namespace vdiff {
inline namespace VDIFF_ISA {

constexpr int64_t kBlock = 8 * kGemmRows;  // positions: their products stay in the first-level cache beside a part of a panel

// to (operand_columns, C): fill(pixel, row of C) inside the plane, zeros in the padding.
template <class acc, class Fill>
void fill_row(const Tiling& tiling, const Unit& unit, int64_t row, int64_t C, const Fill& fill, acc* to) {
  const bool inside = tiling.has_row(row);
  const int64_t margin = tiling.margin(), last = tiling.operand_columns();
  const int64_t begin = inside ? margin + tiling.begin(unit) : last, end = inside ? margin + tiling.end(unit, margin) : last;
  for (int64_t i = 0; i < begin * C; ++i) to[i] = 0;
  if (inside) {
    Pixel pixel = tiling.pixel(unit, row, begin - margin);
    for (int64_t i = begin; i < end; ++i, tiling.step_column(pixel)) fill(pixel, to + i * C);
  }
  for (int64_t i = end * C; i < last * C; ++i) to[i] = 0;
}

// operand (tile.count, 4, operand_columns, C), transformed; for units of one row (.., 3 of 4, ..), the row and one on each side.
template <class acc, class Fill>
void fill_operand(const Tiling& tiling, const OutputTile& tile, int64_t C, const Fill& fill, acc* operand) {
  const int64_t line = tiling.operand_columns() * C;
  Scratch<acc> memory(4 * line);
  const auto slot = [&](int64_t row) { return memory + (row + 1) % 4 * line; };
  const bool plain = tiling.unit_rows() == 1;
  for (int64_t i = 0; i < tile.count; ++i) {
    const Unit unit = tiling.unit(tile.first + i);
    const bool follows = i > 0 && unit.row > 0;  // two of its rows are there
    for (int64_t row = unit.row + (follows ? 1 : -1); row < unit.row + 1 + tiling.unit_rows(); ++row) {
      fill_row(tiling, unit, row, C, fill, slot(row));
    }
    const acc* const d[4] = {slot(unit.row - 1), slot(unit.row), slot(unit.row + 1), slot(unit.row + 2)};
    (plain ? copy_operand<acc> : transform_operand<acc>)(d, line, operand + i * kProducts * line);
  }
}

// Some positions of a tile: where their operands begin, and the first pixels of their two rows of outputs.
template <class acc>
struct Block {
  int64_t count;
  const acc* rows[kBlock + 1];  // of the first product; one more for gemm_rows
  Pixel pixels[kBlock];
  int64_t outputs[kBlock];  // how many of the two rows there are; 0 beyond the plane
  int64_t most_outputs[kBlock / kGemmRows];
};

// Goes through the positions of a tile, block by block.
template <class acc>
class Blocks {
 public:
  Blocks(const Tiling& tiling, const OutputTile& tile, int64_t C, const acc* operand)
      : tiling_(tiling), tile_(tile), C_(C), operand_(operand), unit_(tiling.unit(tile.first)) {}

  bool next(Block<acc>& block) {
    const int64_t stride_unit = kProducts * tiling_.operand_columns() * C_;
    for (int64_t& most : block.most_outputs) most = 0;
    for (block.count = 0; block.count < kBlock && i_ < tile_.count; ++block.count) {
      const int64_t m = block.count;
      const int64_t outputs = column_ >= tiling_.end(unit_, 0) ? 0 : tiling_.has_row(unit_.row + 1) ? tiling_.unit_rows() : 1;
      if (column_ == 0 || m == 0) pixel_ = tiling_.pixel(unit_, unit_.row, column_);
      block.rows[m] = operand_ + i_ * stride_unit + column_ * C_;
      block.pixels[m] = pixel_;
      block.outputs[m] = outputs;
      block.most_outputs[m / kGemmRows] = max_of(block.most_outputs[m / kGemmRows], outputs);
      tiling_.step_column(pixel_);
      if (++column_ == tiling_.columns()) {
        column_ = 0;
        if (++i_ < tile_.count) unit_ = tiling_.unit(tile_.first + i_);
      }
    }
    if (block.count > 0) block.rows[block.count] = block.rows[block.count - 1];
    return block.count > 0;
  }

 private:
  const Tiling& tiling_;
  const OutputTile& tile_;
  int64_t C_;
  const acc* operand_;
  Unit unit_;
  int64_t i_ = 0, column_ = 0;  // of the next position
  Pixel pixel_ = {};
};

// products (4, kBlock, kGemmColumns): of a block's operands, line apart, with a panel. The fourth only where two rows want it.
template <class T>
void multiply_block(
    const TransformedWeight<T>& weight, const Block<acc_t<T>>& block, int64_t line, int64_t i_panel, acc_t<T>* products) {
  using acc = acc_t<T>;
  for (int64_t product = 0; product < kProducts; ++product, products += kBlock * kGemmColumns<acc>) {
    for_gemm_parts(unit_depth(weight.depth()), [&](int64_t offset, const GemmDepth& part, int64_t k) {
      const acc* B = weight.panel(product, i_panel) + k * kGemmColumns<acc>;
      for (int64_t m = 0; m < block.count; m += kGemmRows) {
        if (block.most_outputs[m / kGemmRows] < (product == 3 ? 2 : 1)) continue;
        gemm_rows<acc>(
            block.count - m, block.rows + m, product * line + offset, part, B, k == 0, products + m * kGemmColumns<acc>);
      }
    });
  }
}

// body(m, row, pixel) for every pixel of a block.
template <class acc, class Body>
[[gnu::always_inline]] inline void for_outputs(const Tiling& tiling, const Block<acc>& block, const Body& body) {
  for (int64_t m = 0; m < block.count; ++m) {
    for (int64_t row = 0; row < block.outputs[m]; ++row) {
      body(m, row, row == 0 ? block.pixels[m] : tiling.below(block.pixels[m]));
    }
  }
}

// From products to the outputs of position m, columns [0, count) of the panel: take(Vec y, column, count) for each vector.
template <class acc, class Take>
[[gnu::always_inline]] inline void take_outputs(const acc* products, int64_t m, int64_t row, int64_t count, const Take& take) {
  constexpr int64_t kStride = kBlock * kGemmColumns<acc>;
  const acc* from = products + m * kGemmColumns<acc>;
  for_vectors<acc>(count, [&](int64_t i, int64_t part) {
    const Vec<acc> m1 = load_vector(from + i + kStride), m2 = load_vector(from + i + 2 * kStride);
    take(row == 0 ? load_vector(from + i) + m1 + m2 : m1 - m2 - load_vector(from + i + 3 * kStride), i, part);
  });
}

// store(pixel) gives what takes that pixel's outputs: take(n, Vec y, part) for every vector of columns in order, and before,
// prefetch(n), for a panel's columns. The outputs are of the convolution of what fill(pixel, row of weight.in()) gives. One task
// takes all of a pixel, and after a tile's last output calls done(tile). tiling: for operands of weight.in() channels, and units of
// weight.rows() rows.
template <class T, class Fill, class Store, class Done>
void convolve(
    const Tiling& tiling, const TransformedWeight<T>& weight, const Fill& fill, const Store& store, const Done& done) {
  using acc = acc_t<T>;
  constexpr int64_t kColumns = kGemmColumns<acc>;
  const int64_t line = tiling.operand_columns() * weight.in();
  const int64_t operations = tiling.largest() * tiling.columns() * kProducts * weight.depth() * weight.out();
  parallel_for(0, tiling.count(), operations, [&](int64_t i_tile) {
    const OutputTile tile = tiling[i_tile];
    Scratch<acc> operand(tile.count * kProducts * line), products(kProducts * kBlock * kColumns);
    fill_operand(tiling, tile, weight.in(), fill, operand.get());
    Blocks<acc> blocks(tiling, tile, weight.in(), operand);
    for (Block<acc> block; blocks.next(block);) {
      for (int64_t i_panel = 0; i_panel < weight.panels(); ++i_panel) {
        const int64_t n = i_panel * kColumns, count = min_of(kColumns, weight.out() - n);
        for_outputs(tiling, block, [&](int64_t, int64_t, const Pixel& pixel) { store(pixel).prefetch(n); });
        multiply_block(weight, block, line, i_panel, products.get());
        for_outputs(tiling, block, [&](int64_t m, int64_t row, const Pixel& pixel) {
          const auto to = store(pixel);
          const auto take = [&](Vec<acc> y, int64_t i, int64_t part) { to.take(n + i, y, part); };
          if (count == kColumns) {
            take_outputs(products.get(), m, row, kColumns, take);
          } else {
            take_outputs(products.get(), m, row, count, take);
          }
        });
      }
    }
    done(tile);
  });
}

template <class T, class Fill, class Store>
void convolve(const ConvSizes& s, const TransformedWeight<T>& weight, const Fill& fill, const Store& store) {
  convolve(Tiling(s, weight.in(), weight.rows()), weight, fill, store, [](const OutputTile&) {});
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
