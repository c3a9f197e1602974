// norm_act forward: out = act(norm(x)) + residual.                             contract: params.h, NormActParams
//
//   task     one image row: W pixels of frame (b, t)
//   scratch  C acc per task; tables of 2 (B, C) and 2 (B, T, C) acc per call (prologue.h)
//   acc      acc_t; one rounding, at the store
//   bytes    reads x (and residual) once, writes out once
//
//   h   = act(norm(x))                                                                               (1)
//   out = h + residual                                                                               (2)
//
// Deterministic: a pixel is computed by one task, from x and the statistics alone.
#include "common/cpu/parallel.h"
#include "common/dispatch.h"
#include "norm/cpu_kernels.h"
#include "norm/prologue.h"

namespace vdiff {
inline namespace VDIFF_ISA {

namespace {

template <class T>
void norm_act(const NormActParams& p) {
  using acc = acc_t<T>;
  const Prologue<acc> prologue(p.norm, p.B, p.T, p.C);
  parallel_for(0, p.B * p.T * p.H, 4 * p.W * p.C, [&](int64_t task) {
    const int64_t h = task % p.H, t = task / p.H % p.T, b = task / p.H / p.T;
    Scratch<acc> row(p.C);
    for (int64_t w = 0; w < p.W; ++w) {
      const T* x = static_cast<const T*>(p.x) + p.stride_x.at(b, t, h, w);
      T* out = static_cast<T*>(p.out) + (task * p.W + w) * p.C;
      prologue.apply(x, b, t, row.get());  // (1)
      const T* residual =
          p.residual ? static_cast<const T*>(p.residual) + p.stride_residual.at(b, t, h, w) : nullptr;
      for_vectors<acc>(p.C, [&](int64_t c, int64_t part) {
        const Vec<acc> value = load_part(row + c, part);
        store_part(out + c, residual ? value + load_part(residual + c, part) : value, part);  // (2)
      });
    }
  });
}

}  // namespace

void cpu_norm_act(const NormActParams& p) {
  dispatch(p.dtype, [&](auto tag) { norm_act<typename decltype(tag)::type>(p); });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
