// A packed, register-blocked matrix product for the CPU kernels. No torch, no STL: kernel units include this.
//
//   C[m, n] = sum over k of A[m, k] B[k, n]
//
//   A      rows wherever row(m) says, in acc, read in place: `runs` runs of `depth` values (GemmDepth), so that the taps of a
//          convolution, or the pixels of an image, are one product
//   B      packed once into panels of kGemmColumns columns, (K, kGemmColumns) contiguous, zeros in the columns from N on
//   C      handed to store(m, n, value, count): count columns from n on of row m
//   tile   kGemmRows rows x 2 vectors of columns in registers: 12 accumulators of 16 registers, or 16 of 32
//   cache  about kGemmDepth x kGemmColumns of B in the first level, kGemmBlock tiles of rows of A in the second
//   order  sums of about kGemmDepth products, then the sum of these: the same for an element wherever it lies, so its value
//          depends on its row, its column and GemmDepth alone, not on how the caller splits rows or columns
#pragma once

#include "common/cpu/parallel.h"
#include "common/cpu/scratch.h"
#include "common/cpu/simd.h"

namespace vdiff {
inline namespace VDIFF_ISA {

template <class acc>
constexpr int64_t kGemmColumns = 2 * kLanes<acc>;
constexpr int64_t kGemmRows = kVectorRegisters == 32 ? 8 : 6;
constexpr int64_t kGemmBlock = 16;
constexpr int64_t kGemmDepth = 384;

// Where A[m, k] lies from row(m) on: k = run * depth + i at run * stride_run + i * stride.
struct GemmDepth {
  int64_t runs, depth;
  int64_t stride_run, stride;

  int64_t count() const { return runs * depth; }
};

inline GemmDepth unit_depth(int64_t K) { return {1, K, 0, 1}; }

// B as gemm reads it.
template <class acc>
struct GemmPanels {
  const acc* data;  // (count(), K, kGemmColumns)
  int64_t K, N;

  int64_t count() const { return ceil_div(N, kGemmColumns<acc>); }
  int64_t size() const { return count() * K * kGemmColumns<acc>; }
  const acc* operator[](int64_t i) const { return data + i * K * kGemmColumns<acc>; }
};

// B from any memory. row(k): where B[k, 0] lies, of any dtype; B[k, n] lies n * stride further.
template <class acc>
class PackedPanels {
 public:
  template <class Row>
  PackedPanels(int64_t K, int64_t N, int64_t stride, const Row& row)
      : panels_{nullptr, K, N}, memory_(panels_.size()) {
    panels_.data = memory_;
    parallel_for(0, panels_.count(), 4 * K * kGemmColumns<acc>, [&](int64_t i) {
      constexpr int64_t kColumns = kGemmColumns<acc>;
      const int64_t first = i * kColumns, columns = min_of(kColumns, N - first);
      acc* to = memory_ + i * K * kColumns;
      for (int64_t k = 0; k < K; ++k, to += kColumns) {
        const auto* from = row(k) + first * stride;
        for (int64_t n = 0; n < columns; ++n) to[n] = to_acc(from[n * stride]);
        for (int64_t n = columns; n < kColumns; ++n) to[n] = 0;
      }
    });
  }

  operator const GemmPanels<acc>&() const { return panels_; }
  const GemmPanels<acc>& panels() const { return panels_; }

 private:
  GemmPanels<acc> panels_;
  Scratch<acc> memory_;
};

// sums (kRows, kGemmColumns) = or, unless first, += the product of kRows rows, from their offset on, with a part of a panel.
template <class acc, int64_t kRows>
[[gnu::noinline]] void gemm_tile(
    const acc* const* rows, int64_t offset, const GemmDepth& depth, const acc* B, bool first, acc* sums) {
  constexpr int64_t kCount = kLanes<acc>;
  const acc* row[kRows];
  for (int64_t m = 0; m < kRows; ++m) row[m] = rows[m] + offset;
  Vec<acc> tile[kRows][2] = {};
  for (int64_t run = 0; run < depth.runs; ++run) {
    int64_t at = run * depth.stride_run;
    for (int64_t k = 0; k < depth.depth; ++k, at += depth.stride, B += 2 * kCount) {
      const Vec<acc> b_0 = load_vector(B), b_1 = load_vector(B + kCount);
#pragma GCC unroll 8
      for (int64_t m = 0; m < kRows; ++m) {
        const Vec<acc> a = splat(row[m][at]);
        tile[m][0] += a * b_0;
        tile[m][1] += a * b_1;
      }
    }
  }
#pragma GCC unroll 8
  for (int64_t m = 0; m < kRows; ++m, sums += 2 * kCount) {
    if (!first) {
      tile[m][0] += load_vector(sums);
      tile[m][1] += load_vector(sums + kCount);
    }
    store_vector(sums, tile[m][0]);
    store_vector(sums + kCount, tile[m][1]);
  }
}

// The same for count <= kRows rows; where count is odd, a row is computed twice.
template <class acc, int64_t kRows = kGemmRows>
void gemm_rows(
    int64_t count, const acc* const* rows, int64_t offset, const GemmDepth& depth, const acc* B, bool first, acc* sums) {
  if constexpr (kRows > 2) {
    if (count <= kRows - 2) return gemm_rows<acc, kRows - 2>(count, rows, offset, depth, B, first, sums);
  }
  gemm_tile<acc, kRows>(rows, offset, depth, B, first, sums);
}

// body(offset, part, k): the parts of about kGemmDepth that a sum is taken in: part, at offset from row(m), from k on.
template <class Body>
void for_gemm_parts(const GemmDepth& depth, const Body& body) {
  if (depth.depth >= kGemmDepth) {
    const int64_t part = ceil_div(depth.depth, ceil_div(depth.depth, kGemmDepth));
    for (int64_t run = 0; run < depth.runs; ++run) {
      for (int64_t k = 0; k < depth.depth; k += part) {
        body(
            run * depth.stride_run + k * depth.stride, GemmDepth{1, min_of(part, depth.depth - k), 0, depth.stride},
            run * depth.depth + k);
      }
    }
  } else if (depth.depth > 0) {
    const int64_t part = kGemmDepth / depth.depth;
    for (int64_t run = 0; run < depth.runs; run += part) {
      body(
          run * depth.stride_run,
          GemmDepth{min_of(part, depth.runs - run), depth.depth, depth.stride_run, depth.stride}, run * depth.depth);
    }
  }
}

// Columns of the panels [first_panel, last_panel). row(m): a const acc*. store(m, n, Vec<acc> value, count).
template <class acc, class Row, class Store>
void gemm(
    int64_t M, const GemmDepth& depth, const Row& row, const GemmPanels<acc>& B, int64_t first_panel, int64_t last_panel,
    const Store& store) {
  constexpr int64_t kColumns = kGemmColumns<acc>, kRows = kGemmBlock * kGemmRows, kCount = kLanes<acc>;
  alignas(64) acc sums[kRows * kColumns];
  const acc* rows[kRows + 1];
  for (int64_t first = 0; first < M; first += kRows) {
    const int64_t count = min_of(kRows, M - first);
    for (int64_t m = 0; m < count; ++m) rows[m] = row(first + m);
    rows[count] = rows[count - 1];
    for (int64_t i_panel = first_panel; i_panel < last_panel; ++i_panel) {
      if (depth.count() == 0) {
        for (int64_t i = 0; i < count * kColumns; ++i) sums[i] = 0;
      }
      for_gemm_parts(depth, [&](int64_t offset, const GemmDepth& part, int64_t k) {
        for (int64_t m = 0; m < count; m += kGemmRows) {
          gemm_rows<acc>(
              count - m, rows + m, offset, part, B[i_panel] + k * kColumns, k == 0, sums + m * kColumns);
        }
      });
      const int64_t n = i_panel * kColumns, columns = min_of(kColumns, B.N - n);
      for (int64_t m = 0; m < count; ++m) {
        const acc* from = sums + m * kColumns;
        store(first + m, n, load_vector(from), min_of(columns, kCount));
        if (columns > kCount) store(first + m, n + kCount, load_vector(from + kCount), columns - kCount);
      }
    }
  }
}

template <class acc, class Row, class Store>
void gemm(int64_t M, const GemmDepth& depth, const Row& row, const GemmPanels<acc>& B, const Store& store) {
  gemm(M, depth, row, B, 0, B.count(), store);
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
