// geglu forward: out = a * gelu(b), [a | b] = x weight^T + bias.               contract: params.h, GegluParams
//
//   task     kBlockRows rows of x
//   scratch  rows of x and of [a | b] in acc; per call the weight in acc, transposed (C, 2E)
//   acc      acc_t, summed as in gemm.h; one rounding, at the store
//   flops    4 * C * E per row
//
//   [a | b] = x weight^T + bias                                                                       (1)
//   out     = a * b * (1 + erf(b / sqrt(2))) / 2                                                      (2)
//
// Deterministic: a row is computed by one task, in an order that does not depend on the block.
#include "common/dispatch.h"
#include "feedforward/cpu_kernels.h"
#include "feedforward/projection.h"

namespace vdiff {
inline namespace VDIFF_ISA {

namespace {

template <class T>
void geglu(const GegluParams& p) {
  using acc = acc_t<T>;
  const int64_t C = p.C, E = p.E;
  const T* weight = static_cast<const T*>(p.weight);
  const PackedPanels<acc> packed(C, 2 * E, p.stride_weight_e, [&](int64_t c) { return weight + c * p.stride_weight_c; });
  parallel_for(0, ceil_div(p.M, kBlockRows), [&](int64_t task) {
    const int64_t first = task * kBlockRows, count = min_of(kBlockRows, p.M - first);
    Scratch<acc> x(count * C), ab(count * 2 * E);
    load_rows(static_cast<const T*>(p.x) + first * p.stride_x, p.stride_x, count, C, x.get());
    project<acc>(x, packed, static_cast<const acc*>(p.bias), count, ab);  // (1)
    for (int64_t m = 0; m < count; ++m) {
      const acc* a = ab + m * 2 * E;
      const acc* b = a + E;
      T* out = static_cast<T*>(p.out) + (first + m) * E;
      for (int64_t e = 0; e < E; ++e) out[e] = from_acc<T>(a[e] * (b[e] * normal_cdf(b[e])));  // (2)
    }
  });
}

}  // namespace

void cpu_geglu(const GegluParams& p) {
  dispatch(p.dtype, [&](auto tag) { geglu<typename decltype(tag)::type>(p); });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
