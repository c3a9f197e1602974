// A convolution from what fills its operand and what takes its outputs. No torch, no STL.
//
//   task     a tile (tiles.h)
//   scratch  the tile's transformed operand (units, 4, operand_columns, in), and four rows of it before; products of kBlock positions
#pragma once

#include "common/parallel.h"
#include "conv/tiles.h"
#include "conv/transform.h"

namespace vdiff {
inline namespace VDIFF_ISA {

constexpr int64_t kBlock = 8 * kGemmRows;  // positions: their products stay in the first-level cache beside a part of a panel

// to (operand_columns, C): fill(pixel, row of C) inside the plane, zeros in the padding.
template <class acc, class Fill>
void fill_row(const Tiling& tiling, const Unit& unit, int64_t row, int64_t C, const Fill& fill, acc* to) {
  for (int64_t i = 0; i < tiling.operand_columns(); ++i, to += C) {
    const int64_t column = i - tiling.margin();
    if (tiling.has_row(row) && tiling.has_column(unit, column)) {
      fill(tiling.pixel(unit, row, column), to);
    } else {
      for (int64_t c = 0; c < C; ++c) to[c] = 0;
    }
  }
}

// operand (tile.count, 4, operand_columns, C), transformed.
template <class acc, class Fill>
void fill_operand(const Tiling& tiling, const Tile& tile, int64_t C, const Fill& fill, acc* operand) {
  const int64_t line = tiling.operand_columns() * C;
  Scratch<acc> memory(4 * line);
  const auto slot = [&](int64_t row) { return memory + (row + 1) % 4 * line; };
  for (int64_t i = 0; i < tile.count; ++i) {
    const Unit unit = tiling.unit(tile.first + i);
    const bool follows = i > 0 && unit.row > 0;  // two of its rows are there
    for (int64_t row = unit.row + (follows ? 1 : -1); row < unit.row + 3; ++row) {
      fill_row(tiling, unit, row, C, fill, slot(row));
    }
    transform_operand<acc>(
        {slot(unit.row - 1), slot(unit.row), slot(unit.row + 1), slot(unit.row + 2)}, line, operand + i * kProducts * line);
  }
}

// Some positions of a tile: where their operands begin, and the pixels of their two rows of outputs.
template <class acc>
struct Block {
  int64_t count;
  const acc* rows[kBlock + 1];  // of the first product; one more for gemm_rows
  Pixel pixels[kBlock][2];
  int64_t outputs[kBlock];  // how many of the two there are; 0 beyond the plane
};

template <class acc>
void fill_block(const Tiling& tiling, const Tile& tile, int64_t C, const acc* operand, int64_t first, Block<acc>& block) {
  const int64_t columns = tiling.columns();
  block.count = min_of(kBlock, tile.count * columns - first);
  for (int64_t m = 0; m < block.count; ++m) {
    const int64_t i = (first + m) / columns, column = (first + m) % columns;
    const Unit unit = tiling.unit(tile.first + i);
    block.rows[m] = operand + (i * kProducts * tiling.operand_columns() + column) * C;
    block.outputs[m] = !tiling.has_column(unit, column) ? 0 : tiling.has_row(unit.row + 1) ? 2 : 1;
    for (int64_t row = 0; row < 2; ++row) block.pixels[m][row] = tiling.pixel(unit, unit.row + row, column);
  }
  block.rows[block.count] = block.rows[block.count - 1];
}

// products (4, kBlock, kGemmColumns): of a block's operands, line apart, with a panel. The fourth only where two rows want it.
template <class T>
void multiply_block(
    const TransformedWeight<T>& weight, const Block<acc_t<T>>& block, int64_t line, int64_t i_panel, acc_t<T>* products) {
  using acc = acc_t<T>;
  for (int64_t product = 0; product < kProducts; ++product, products += kBlock * kGemmColumns<acc>) {
    for_gemm_parts(unit_depth(weight.depth()), [&](int64_t offset, const GemmDepth& part, int64_t k) {
      const acc* B = weight.panel(product, i_panel) + k * kGemmColumns<acc>;
      for (int64_t m = 0; m < block.count; m += kGemmRows) {
        int64_t outputs = 0;
        for (int64_t i = m; i < min_of(m + kGemmRows, block.count); ++i) outputs = max_of(outputs, block.outputs[i]);
        if (outputs < (product == 3 ? 2 : 1)) continue;
        gemm_rows<acc>(
            block.count - m, block.rows + m, product * line + offset, part, B, k == 0, products + m * kGemmColumns<acc>);
      }
    });
  }
}

// store(pixel, n, Vec y, count) for every pixel and vector of columns in order, of the convolution of what
// fill(pixel, row of weight.in()) gives. One task takes all of a pixel.
template <class T, class Fill, class Store>
void convolve(const ConvSizes& s, const TransformedWeight<T>& weight, const Fill& fill, const Store& store) {
  using acc = acc_t<T>;
  constexpr int64_t kColumns = kGemmColumns<acc>, kCount = kLanes<acc>;
  const Tiling tiling(s, weight.in());
  const int64_t line = tiling.operand_columns() * weight.in();
  parallel_for(0, tiling.count(), [&](int64_t i_tile) {
    const Tile tile = tiling[i_tile];
    Scratch<acc> operand(tile.count * kProducts * line);
    fill_operand(tiling, tile, weight.in(), fill, operand.get());
    Scratch<acc> products(kProducts * kBlock * kColumns);
    Block<acc> block;
    for (int64_t first = 0; first < tile.count * tiling.columns(); first += kBlock) {
      fill_block(tiling, tile, weight.in(), operand.get(), first, block);
      for (int64_t i_panel = 0; i_panel < weight.panels(); ++i_panel) {
        multiply_block(weight, block, line, i_panel, products.get());
        const int64_t n_panel = i_panel * kColumns;
        for (int64_t m = 0; m < block.count; ++m) {
          for (int64_t i = 0; i < min_of(kColumns, weight.out() - n_panel) && block.outputs[m] > 0; i += kCount) {
            const acc* from = products.get() + m * kColumns + i;
            const auto product = [&](int64_t which) { return load_vector(from + which * kBlock * kColumns); };
            const int64_t n = n_panel + i, count = min_of(kCount, weight.out() - n);
            store(block.pixels[m][0], n, product(0) + product(1) + product(2), count);
            if (block.outputs[m] > 1) store(block.pixels[m][1], n, product(1) - product(2) - product(3), count);
          }
        }
      }
    }
  });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
