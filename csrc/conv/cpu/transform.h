// The convolution over rows as Winograd's minimal filtering F(2, 3) (Lavin & Gray 2015, arXiv 1509.09308): two rows of outputs by
// four products where plain sums take six. No torch, no STL.
//
//   operand   v = (d0 - d2, d1 + d2, d2 - d1, d1 - d3)             d: four rows of the operand, the pair's and one on each side
//   weight    u = (g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2)  g: the three taps over rows
//   output    m = v u;  y0 = m0 + m1 + m2,  y1 = m1 - m2 - m3       without the second row three products are enough
//
// and the weight's gradient by the transposes: (dy0, dy0 + dy1, dy0 - dy1, -dy1), summed over pixels with v, then G^T.
//
// The sums d1 + d2 and d2 - d1 round relative to the larger row. Where an output's taps g0, g1, g2 are of like size, its own terms
// are as large, and so is the rounding of plain sums. Where one tap is more than kBalance times another, as those of an identity
// are, a large row that the output hardly depends on would spoil a small one that it is made of: such a weight is left as it is, a
// unit is one row, and its products are those of plain sums, (d0 g0, d1 g1, d2 g2).
#pragma once

#include "common/cpu/gemm.h"
#include "conv/params.h"

namespace vdiff {
inline namespace VDIFF_ISA {

constexpr int64_t kProducts = 4;
constexpr int kBalance = 16;  // The error of an output is at most about so many times that of plain sums.

// to (4, count) from four rows of count values.
template <class acc>
void transform_operand(const acc* const (&d)[4], int64_t count, acc* to) {
  for_vectors<acc>(count, [&](int64_t i, int64_t part) {
    const Vec<acc> d1 = load_part(d[1] + i, part), d2 = load_part(d[2] + i, part);
    store_part(to + i, load_part(d[0] + i, part) - d2, part);
    store_part(to + count + i, d1 + d2, part);
    store_part(to + 2 * count + i, d2 - d1, part);
    store_part(to + 3 * count + i, d1 - load_part(d[3] + i, part), part);
  });
}

// to (3, count) of four: the rows themselves.
template <class acc>
void copy_operand(const acc* const (&d)[4], int64_t count, acc* to) {
  for (int64_t row = 0; row < 3; ++row, to += count) {
    for_vectors<acc>(count, [&](int64_t i, int64_t part) { store_part(to + i, load_part(d[row] + i, part), part); });
  }
}

// The weight as the right sides of the four products, each (tap_columns * in, out).
template <class T>
class TransformedWeight {
 public:
  using acc = acc_t<T>;

  // transposed: for the gradient with respect to the operand, in and out exchange and every tap comes from the far side.
  TransformedWeight(const ConvWeight& weight, const ConvSizes& s, bool transposed)
      : in_(transposed ? s.Co : s.Ci),
        out_(transposed ? s.Ci : s.Co),
        tap_columns_(s.temporal ? 1 : 3),
        product_{nullptr, tap_columns_ * in_, out_},
        memory_(kProducts * product_.size()) {
    product_.data = memory_;
    Scratch<acc> sizes(product_.count() * tap_columns_ * 3 * kGemmColumns<acc>);
    const auto pack_all = [&] {
      parallel_for(0, product_.count() * tap_columns_, 8 * in_ * kGemmColumns<acc>, [&](int64_t i) {
        pack(weight, transposed, i / tap_columns_, i % tap_columns_, sizes + i * 3 * kGemmColumns<acc>);
      });
    };
    pack_all();
    if (!balanced(sizes)) {
      plain_ = true;
      pack_all();
    }
  }

  bool plain() const { return plain_; }
  int64_t rows() const { return plain_ ? 1 : 2; }  // of outputs, of a unit
  int64_t in() const { return in_; }
  int64_t out() const { return out_; }
  int64_t panels() const { return product_.count(); }
  int64_t depth() const { return product_.K; }
  const acc* panel(int64_t product, int64_t i) const { return product_[i] + product * product_.size(); }

 private:
  // sizes (panels, tap_columns, 3, kGemmColumns): the sum of |g| over the inputs, of each tap and output.
  bool balanced(const acc* sizes) const {
    constexpr int64_t kColumns = kGemmColumns<acc>;
    for (int64_t i = 0; i < panels() * kColumns; ++i) {
      acc g[3] = {};
      for (int64_t tap = 0; tap < tap_columns_; ++tap) {
        const acc* size = sizes + (i / kColumns * tap_columns_ + tap) * 3 * kColumns + i % kColumns;
        for (int64_t row = 0; row < 3; ++row) g[row] += size[row * kColumns];
      }
      if (max_of(g[0], max_of(g[1], g[2])) > kBalance * min_of(g[0], min_of(g[1], g[2]))) return false;
    }
    return true;
  }

  // Panel i_panel of each product, its rows of one tap over columns; size (3, kGemmColumns) as above.
  void pack(const ConvWeight& weight, bool transposed, int64_t i_panel, int64_t tap, acc* size) {
    constexpr int64_t kColumns = kGemmColumns<acc>, kCount = kLanes<acc>;
    const int64_t first = i_panel * kColumns, columns = min_of(kColumns, out_ - first);
    const int64_t stride_in = transposed ? weight.stride_co : weight.stride_ci;
    const int64_t stride_out = transposed ? weight.stride_ci : weight.stride_co;
    const int64_t stride_row = transposed ? -weight.stride_row : weight.stride_row;
    const T* from = static_cast<const T*>(weight.data) + first * stride_out +
                    (transposed ? tap_columns_ - 1 - tap : tap) * weight.stride_column +
                    (transposed ? 2 * weight.stride_row : 0);
    acc* to = memory_ + (i_panel * depth() + tap * in_) * kColumns;
    acc g[3][kColumns] = {};
    for (int64_t i = 0; i < 3 * kColumns; ++i) size[i] = 0;
    for (int64_t k = 0; k < in_; ++k, from += stride_in, to += kColumns) {
      for (int64_t n = 0; n < columns; ++n) {
        for (int64_t row = 0; row < 3; ++row) g[row][n] = to_acc(from[n * stride_out + row * stride_row]);
      }
      for (int64_t n = 0; n < kColumns; n += kCount) {
        for (int64_t row = 0; row < 3; ++row) {
          const Vec<acc> value = load_vector(g[row] + n);
          store_vector(size + row * kColumns + n, load_vector(size + row * kColumns + n) + max_lanes(value, -value));
        }
        if (plain_) {
          for (int64_t row = 0; row < 3; ++row) store_vector(to + row * product_.size() + n, load_vector(g[row] + n));
          continue;
        }
        const Vec<acc> g0 = load_vector(g[0] + n), g1 = load_vector(g[1] + n), g2 = load_vector(g[2] + n);
        const Vec<acc> outer = (g0 + g2) * acc(0.5), inner = g1 * acc(0.5);
        store_vector(to + n, g0);
        store_vector(to + product_.size() + n, outer + inner);
        store_vector(to + 2 * product_.size() + n, outer - inner);
        store_vector(to + 3 * product_.size() + n, g2);
      }
    }
  }

  int64_t in_, out_, tap_columns_;
  bool plain_ = false;
  GemmPanels<acc> product_;  // of the first product; the others follow
  Scratch<acc> memory_;
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
