// [a | b] = x weight^T + bias, the projection that forward and backward of geglu share. No torch, no STL.
#pragma once

#include "common/gemm.h"
#include "common/math.h"
#include "common/parallel.h"
#include "common/scratch.h"

namespace vdiff {
inline namespace VDIFF_ISA {

constexpr int64_t kBlockRows = 64;  // rows of x in a task

// The normal distribution function: gelu(x) = x * normal_cdf(x).
template <class acc>
acc normal_cdf(acc x) {
  return acc(0.5) * (1 + erf_of(x * acc(0.70710678118654752440)));
}

template <class acc>
acc normal_density(acc x) {
  return acc(0.39894228040143267794) * exp_of(acc(-0.5) * x * x);
}

// to (count, C) <- rows of x in acc.
template <class T>
void load_rows(const T* x, int64_t stride_x, int64_t count, int64_t C, acc_t<T>* to) {
  for (int64_t m = 0; m < count; ++m, to += C) {
    for (int64_t c = 0; c < C; ++c) to[c] = to_acc(x[m * stride_x + c]);
  }
}

// ab (count, 2E) from x (count, C) and weight^T (C, 2E).
template <class acc>
void project(const acc* x, const GemmPanels<acc>& weight, const acc* bias, int64_t count, acc* ab) {
  const int64_t C = weight.K, E2 = weight.N;
  const auto store = [&](int64_t m, int64_t e, Vec<acc> value, int64_t columns) {
    store_part(ab + m * E2 + e, bias ? value + load_part(bias + e, columns) : value, columns);
  };
  gemm<acc>(count, unit_depth(C), [&](int64_t m) { return x + m * C; }, weight, store);
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
