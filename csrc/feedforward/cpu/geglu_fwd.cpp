// geglu forward: out = a * gelu(b), [a | b] = x weight^T + bias.               contract: params.h, GegluParams
//
//   task     kBlockRows rows of x; where these are few, by some of the columns
//   scratch  a task's rows of x in acc, and of a a panel of columns; per call the weight in acc, transposed, a and b apart
//   acc      acc_t, summed as in gemm.h; one rounding, at the store
//   flops    4 * C * E per row
//   bytes    x and weight read, out written: a and b stay in the first-level cache
//
//   [a | b] = x weight^T + bias                                                                       (1)
//   out     = a * b * (1 + erf(b / sqrt(2))) / 2                                                      (2)
//
// Deterministic: an output is computed by one task, in an order that does not depend on the block.
#include "common/dispatch.h"
#include "feedforward/cpu/projection.h"
#include "feedforward/cpu_kernels.h"

namespace vdiff {
inline namespace VDIFF_ISA {

namespace {

constexpr int64_t kTasksWanted = 16;

template <class T>
void geglu(const GegluParams& p) {
  using acc = acc_t<T>;
  const int64_t C = p.C, E = p.E, blocks = ceil_div(p.M, kBlockRows);
  const Projection<T> project(
      static_cast<const T*>(p.weight), p.stride_weight_e, p.stride_weight_c, static_cast<const acc*>(p.bias), C, E);
  const int64_t panels = max_of<int64_t>(1, ceil_div(project.panels() * blocks, max_of(blocks, kTasksWanted)));  // of a task
  const int64_t splits = ceil_div(project.panels(), panels);
  parallel_for(0, blocks * splits, 2 * min_of(kBlockRows, p.M) * C * panels * kGemmColumns<acc>, [&](int64_t task) {
    const int64_t first = task / splits * kBlockRows, count = min_of(kBlockRows, p.M - first);
    const int64_t begin = task % splits * panels;
    Scratch<acc> x(count * C);
    load_rows(static_cast<const T*>(p.x) + first * p.stride_x, p.stride_x, count, C, x.get());
    T* out = static_cast<T*>(p.out) + first * E;
    const auto take = [&](int64_t m, int64_t e, Vec<acc> a, Vec<acc> b, int64_t part) {
      store_part(out + m * E + e, a * (b * normal_cdf(b)), part);  // (2)
    };
    for (int64_t i = begin; i < min_of(begin + panels, project.panels()); ++i) project(x, count, i, take);  // (1)
  });
}

}  // namespace

void cpu_geglu(const GegluParams& p) {
  dispatch(p.dtype, [&](auto tag) { geglu<typename decltype(tag)::type>(p); });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
