// A plain register-blocked matrix product for the CPU kernels. No torch, no STL: kernel units include this.
//
//   C[o,m,n] += sum_k A[o,m,k] B[k,n]         m has two levels, o and m, so that rows of an image are one product
//
//   block  4 rows x one 32-byte run of columns in registers; 8 + 2 + 1 of the 16 SSE registers
//   order  k in steps of kGemmDepth, summed in registers, then added to C: the same for an element wherever it lies, so its
//          value depends on K alone, not on how the caller splits the rows
//   limits N is a multiple of kGemmColumns: callers pad B and C (gemm_columns, gemm_stride), whose columns have unit stride
#pragma once

#include <cstdint>

#include "common/scalar.h"

namespace vdiff {
inline namespace VDIFF_ISA {

template <class acc>
constexpr int64_t kGemmColumns = 32 / int64_t(sizeof(acc));
constexpr int64_t kGemmRows = 4;
constexpr int64_t kGemmDepth = 256;  // 8 KiB of B per run of columns: stays in the first-level cache

template <class acc>
int64_t gemm_columns(int64_t count) {
  return ceil_div(count, kGemmColumns<acc>) * kGemmColumns<acc>;
}

// A row stride of at least gemm_columns(count) that is no multiple of 512 bytes: rows at such a distance share cache sets.
template <class acc>
int64_t gemm_stride(int64_t count) {
  const int64_t columns = gemm_columns<acc>(count);
  return columns * int64_t(sizeof(acc)) % 512 == 0 ? columns + 2 * kGemmColumns<acc> : columns;
}

template <class acc>
struct GemmParams {
  int64_t O, M, N, K;
  const acc* A;  // (O, M, K)
  int64_t stride_a_o, stride_a_m, stride_a_k;
  const acc* B;  // (K, N)
  int64_t stride_b;
  acc* C;  // (O, M, N)
  int64_t stride_c_o, stride_c_m;
};

template <class acc, int64_t kRows>
inline void gemm_block(
    const acc* A, int64_t stride_a_m, int64_t stride_a_k, const acc* B, int64_t stride_b, acc* C, int64_t stride_c, int64_t K) {
  constexpr int64_t kColumns = kGemmColumns<acc>;
  acc sums[kRows][kColumns] = {};
  for (int64_t k = 0; k < K; ++k) {
    // Columns outside, rows inside: so gcc keeps sums in registers; the other way round is four times slower.
    for (int64_t n = 0; n < kColumns; ++n) {
      for (int64_t m = 0; m < kRows; ++m) sums[m][n] += A[m * stride_a_m + k * stride_a_k] * B[k * stride_b + n];
    }
  }
  for (int64_t m = 0; m < kRows; ++m) {
    for (int64_t n = 0; n < kColumns; ++n) C[m * stride_c + n] += sums[m][n];
  }
}

template <class acc>
void gemm(const GemmParams<acc>& p) {
  for (int64_t k = 0; k < p.K; k += kGemmDepth) {
    const int64_t depth = min_of(kGemmDepth, p.K - k);
    for (int64_t n = 0; n < p.N; n += kGemmColumns<acc>) {
      const acc* B = p.B + k * p.stride_b + n;
      for (int64_t o = 0; o < p.O; ++o) {
        const acc* A = p.A + o * p.stride_a_o + k * p.stride_a_k;
        acc* C = p.C + o * p.stride_c_o + n;
        int64_t m = 0;
        for (; m + kGemmRows <= p.M; m += kGemmRows) {
          gemm_block<acc, kGemmRows>(
              A + m * p.stride_a_m, p.stride_a_m, p.stride_a_k, B, p.stride_b, C + m * p.stride_c_m, p.stride_c_m, depth);
        }
        for (; m < p.M; ++m) {
          gemm_block<acc, 1>(
              A + m * p.stride_a_m, p.stride_a_m, p.stride_a_k, B, p.stride_b, C + m * p.stride_c_m, p.stride_c_m, depth);
        }
      }
    }
  }
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
