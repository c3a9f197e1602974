// norm_act_conv forward: out = conv(act(norm(x))) + bias + temb, then + residual or mixed with it.
//                                                                              contract: params.h, NormActConvParams
//   task     a tile of outputs (tiles.h): pairs of rows of frames, or of frames of a clip
//   scratch  the tile's operand h, transformed, in acc; per call the transformed weight in acc, 4/3 of it
//   acc      acc_t, summed as in gemm.h; one rounding, at the store
//   flops    2 * 6 * Ci * Co per pixel, or 2 * 2 * Ci * Co, by transform.h: 2/3 of plain sums; norm and act once per pixel, twice
//            for those that two tiles read
//
//   h   = act(norm(x)), zeros around                                                                 (1)
//   y   = sum over taps of h W                                                                        (2)
//   y   = y + (bias + temb)                                                                           (3)
//   out = y | y + residual | residual + (1 - mix) y                                                   (4)
//
// Deterministic: an output is computed by one task, in an order that does not depend on the tile.
#include "common/dispatch.h"
#include "conv/cpu/convolve.h"
#include "conv/cpu/epilogue.h"
#include "conv/cpu/output_stats.h"
#include "conv/cpu_kernels.h"
#include "norm/prologue.h"

namespace vdiff {
inline namespace VDIFF_ISA {

namespace {

// A pixel of out.
template <class T>
struct Output {
  T* out;
  const acc_t<T>* offset;
  const T* residual;  // or null
  acc_t<T> factor;

  void prefetch(int64_t n) const {
    __builtin_prefetch(out + n, 1);
    if (residual) __builtin_prefetch(residual + n);
  }

  void take(int64_t n, Vec<acc_t<T>> y, int64_t part) const {
    y += load_part(offset + n, part);                              // (3)
    if (residual) y = load_part(residual + n, part) + factor * y;  // (4)
    store_part(out + n, y, part);
  }
};

template <class T>
void norm_act_conv(const NormActConvParams& p) {
  using acc = acc_t<T>;
  const ConvSizes& s = p.sizes;
  const Prologue<acc> prologue(p.norm, s.B, s.T, s.Ci);
  const TransformedWeight<T> weight(p.weight, s, false);
  const Epilogue<acc> epilogue(p.bias, p.temb, p.mix, s);

  const auto fill = [&](const Pixel& i, acc* h) {  // (1)
    prologue.apply(static_cast<const T*>(p.x) + p.stride_x.at(i.b, i.t, i.h, i.w), i.b, i.t, h);
  };
  const auto store = [&](const Pixel& i) {
    return Output<T>{
        static_cast<T*>(p.out) + (((i.b * s.T + i.t) * s.H + i.h) * s.W + i.w) * s.Co, epilogue.offset(i.b, i.t),
        p.residual ? static_cast<const T*>(p.residual) + p.stride_residual.at(i.b, i.t, i.h, i.w) : nullptr,
        epilogue.factor(i.b, i.t)};
  };
  const Tiling tiling(s, weight.in(), weight.rows());
  OutputStats<T> stats(s, tiling, p.out, p.out_stats);
  convolve(tiling, weight, fill, store, [&](const OutputTile& tile) { stats.take(tile); });  // (2)
  stats.finish();
}

}  // namespace

void cpu_norm_act_conv(const NormActConvParams& p) {
  dispatch(p.dtype, [&](auto tag) { norm_act_conv<typename decltype(tag)::type>(p); });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
