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

// to (C, width) <- weight (2E, C) transposed, in acc, zeros from 2E on.
template <class T>
void pack_transposed(
    const T* weight, int64_t stride_e, int64_t stride_c, int64_t E2, int64_t C, acc_t<T>* to, int64_t width) {
  parallel_for(0, C, [&](int64_t c) {
    for (int64_t e = 0; e < E2; ++e) to[c * width + e] = to_acc(weight[e * stride_e + c * stride_c]);
    for (int64_t e = E2; e < width; ++e) to[c * width + e] = 0;
  });
}

// to (count, width) <- rows of x (count, C) in acc, zeros from C on.
template <class T>
void load_rows(const T* x, int64_t stride_x, int64_t count, int64_t C, acc_t<T>* to, int64_t width) {
  for (int64_t m = 0; m < count; ++m, to += width) {
    for (int64_t c = 0; c < C; ++c) to[c] = to_acc(x[m * stride_x + c]);
    for (int64_t c = C; c < width; ++c) to[c] = 0;
  }
}

// ab (count, width_ab) from x (count, width_x) and the packed weight (C, width_ab).
template <class acc>
void project(
    const acc* x, int64_t width_x, const acc* packed, const acc* bias, int64_t count, int64_t C, int64_t E2, acc* ab,
    int64_t width_ab) {
  for (int64_t i = 0; i < count * width_ab; ++i) ab[i] = 0;
  gemm<acc>({1, count, gemm_columns<acc>(E2), C, x, 0, width_x, 1, packed, width_ab, ab, 0, width_ab});
  for (int64_t m = 0; bias && m < count; ++m) {
    for (int64_t e = 0; e < E2; ++e) ab[m * width_ab + e] += bias[e];
  }
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
