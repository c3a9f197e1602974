// The halves a and b of x weight^T + bias, a panel of both at a time: what forward and backward of geglu share.
// No torch, no STL.
#pragma once

#include "common/cpu/gemm.h"
#include "common/cpu/parallel.h"
#include "common/cpu/scratch.h"

namespace vdiff {
inline namespace VDIFF_ISA {

constexpr int64_t kBlockRows = kGemmBlock * kGemmRows;  // rows of x in a task

// The normal distribution function: gelu(x) = x * normal_cdf(x).
template <class V>
[[gnu::always_inline]] inline V normal_cdf(V x) {
  using acc = decltype(x[0] + x[0]);
  return acc(0.5) * (1 + erf_of(x * acc(0.70710678118654752440)));
}

template <class V>
[[gnu::always_inline]] inline V normal_density(V x) {
  using acc = decltype(x[0] + x[0]);
  return acc(0.39894228040143267794) * exp_of(acc(-0.5) * x * x);
}

// to (count, C) <- rows of x in acc.
template <class T>
void load_rows(const T* x, int64_t stride_x, int64_t count, int64_t C, acc_t<T>* to) {
  for (int64_t m = 0; m < count; ++m, x += stride_x, to += C) {
    for_vectors<acc_t<T>>(C, [&](int64_t c, int64_t part) { store_part(to + c, load_part(x + c, part), part); });
  }
}

template <class T>
class Projection {
 public:
  using acc = acc_t<T>;

  // weight (2E, C), bias (2E,) or null
  Projection(const T* weight, int64_t stride_e, int64_t stride_c, const acc* bias, int64_t C, int64_t E)
      : C_(C),
        E_(E),
        bias_(bias),
        a_(C, E, stride_e, [&](int64_t c) { return weight + c * stride_c; }),
        b_(C, E, stride_e, [&](int64_t c) { return weight + E * stride_e + c * stride_c; }) {}

  int64_t panels() const { return a_.panels().count(); }

  // take(m, e, Vec a, Vec b, part) for every vector of columns of a panel, of count <= kBlockRows rows of x (count, C).
  template <class Take>
  void operator()(const acc* x, int64_t count, int64_t i_panel, const Take& take) const {
    constexpr int64_t kColumns = kGemmColumns<acc>;
    alignas(64) acc a[kBlockRows * kColumns];
    const int64_t first = i_panel * kColumns;
    const auto row = [&](int64_t m) { return x + m * C_; };
    gemm<acc>(count, unit_depth(C_), row, a_, i_panel, i_panel + 1, [&](int64_t m, int64_t e, Vec<acc> value, int64_t part) {
      store_vector(a + m * kColumns + e - first, biased(value, e, part));
    });
    gemm<acc>(count, unit_depth(C_), row, b_, i_panel, i_panel + 1, [&](int64_t m, int64_t e, Vec<acc> value, int64_t part) {
      take(m, e, load_vector(a + m * kColumns + e - first), biased(value, E_ + e, part), part);
    });
  }

 private:
  [[gnu::always_inline]] Vec<acc> biased(Vec<acc> value, int64_t e, int64_t part) const {
    return bias_ ? value + load_part(bias_ + e, part) : value;
  }

  int64_t C_, E_;
  const acc* bias_;
  PackedPanels<acc> a_, b_;  // (C, E)
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
