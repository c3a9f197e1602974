// norm_act_conv backward.                                                      contract: params.h, NormActConvBackwardParams
//
//   task     a tile of pixels (tiles.h) for dx, dmix and the operands of dweight; rows of dweight by a panel of columns; a band of
//            pixels of a frame for dbias and dtemb
//   scratch  dx: dh (B, T, H, W, Ci) acc; dweight: one sum in acc, 4/3 of it, and operands h and dy, transformed, of kSlabTiles tiles
//   acc      acc_t; double across pixels for dbias, dtemb and dmix
//
//   dy      = (1 - mix) grad                                                                          (1)
//   dtemb   = sum_hw(dy);  dbias = sum_bt(dtemb)                                                      (2)
//   dmix    = -sum(grad y),  y = conv(h) + bias + temb computed again                                 (3)
//   dweight = sum over pixels of h^T dy, for every tap                                                (4)
//   dh      = conv(dy) with channels exchanged and taps turned round;  dx = norm and act backward     (5)
//
// Deterministic: tiles, slabs and bands follow from the sizes alone; an element of dweight is summed by one task at a time, slab
// after slab and tile after tile in order; every other sum runs in order, too.
#include "common/dispatch.h"
#include "conv/cpu/convolve.h"
#include "conv/cpu/epilogue.h"
#include "conv/cpu_kernels.h"
#include "norm/cpu_kernels.h"
#include "norm/prologue.h"

namespace vdiff {
inline namespace VDIFF_ISA {

namespace {

constexpr int64_t kBandPixels = 64;
constexpr int64_t kSlabTiles = 16;
constexpr int64_t kWeightRows = 16 * kGemmRows;

template <class T>
class ConvBackward {
 public:
  using acc = acc_t<T>;

  explicit ConvBackward(const NormActConvBackwardParams& p)
      : p_(p), s_(p.sizes), prologue_(p.norm, s_.B, s_.T, s_.Ci), epilogue_(p.bias, p.temb, p.mix, s_) {}

  void run() {
    if (p_.dbias || p_.dtemb) channel_sums();
    if (p_.dmix) mix_gradient();
    if (p_.dweight) weight_gradient();
    if (p_.need_x) input_gradient();
  }

 private:
  const T* grad_at(int64_t b, int64_t t, int64_t h, int64_t w) const {
    return static_cast<const T*>(p_.grad) + p_.stride_grad.at(b, t, h, w);
  }

  void fill_h(const Pixel& i, acc* h) const {
    prologue_.apply(static_cast<const T*>(p_.x) + p_.stride_x.at(i.b, i.t, i.h, i.w), i.b, i.t, h);
  }

  // (1)
  void fill_dy(const Pixel& i, acc* dy) const {
    const T* grad = grad_at(i.b, i.t, i.h, i.w);
    const acc factor = epilogue_.factor(i.b, i.t);
    for_vectors<acc>(s_.Co, [&](int64_t c, int64_t part) { store_part(dy + c, factor * load_part(grad + c, part), part); });
  }

  // (2)
  void channel_sums() {
    const int64_t Co = s_.Co, frames = s_.B * s_.T, pixels = s_.H * s_.W, bands = ceil_div(pixels, kBandPixels);
    Scratch<double> band_sums(frames * bands * Co);
    parallel_for(0, frames * bands, min_of(kBandPixels, pixels) * Co, [&](int64_t task) {
      const int64_t i_frame = task / bands, begin = task % bands * kBandPixels;
      double* sums = band_sums + task * Co;
      for (int64_t c = 0; c < Co; ++c) sums[c] = 0;
      for (int64_t i = begin; i < min_of(begin + kBandPixels, pixels); ++i) {
        const T* grad = grad_at(i_frame / s_.T, i_frame % s_.T, i / s_.W, i % s_.W);
        for (int64_t c = 0; c < Co; ++c) sums[c] += double(to_acc(grad[c]));
      }
    });
    Scratch<double> total(Co), frame_sums(Co);
    total.zero(Co);
    for (int64_t i_frame = 0; i_frame < frames; ++i_frame) {
      frame_sums.zero(Co);
      for (int64_t band = 0; band < bands; ++band) {
        const double* sums = band_sums + (i_frame * bands + band) * Co;
        for (int64_t c = 0; c < Co; ++c) frame_sums[c] += sums[c];
      }
      const double factor = epilogue_.factor(i_frame / s_.T, i_frame % s_.T);
      for (int64_t c = 0; c < Co; ++c) {
        total[c] += factor * frame_sums[c];
        if (p_.dtemb) static_cast<acc*>(p_.dtemb)[i_frame * Co + c] = acc(factor * frame_sums[c]);
      }
    }
    for (int64_t c = 0; p_.dbias && c < Co; ++c) static_cast<acc*>(p_.dbias)[c] = acc(total[c]);
  }

  // sum_c(grad y) of a pixel.
  struct Product {
    const T* grad;
    const acc* offset;
    acc* sum;

    void prefetch(int64_t n) const { __builtin_prefetch(grad + n); }

    void take(int64_t n, Vec<acc> y, int64_t part) const {
      *sum += sum_of(keep_lanes((y + load_part(offset + n, part)) * load_part(grad + n, part), part));
    }
  };

  // (3)
  void mix_gradient() {
    const int64_t frames = s_.B * s_.T, pixels = s_.H * s_.W;
    Scratch<acc> products(frames * pixels);  // (B, T, H, W): sum_c(grad y)
    products.zero(frames * pixels);
    const TransformedWeight<T> weight(p_.weight, s_, false);
    const auto store = [&](const Pixel& i) {
      return Product{
          grad_at(i.b, i.t, i.h, i.w), epilogue_.offset(i.b, i.t),
          products + (i.b * s_.T + i.t) * pixels + i.h * s_.W + i.w};
    };
    convolve(s_, weight, [&](const Pixel& i, acc* h) { fill_h(i, h); }, store);
    for (int64_t i_frame = 0; i_frame < frames; ++i_frame) {
      double sum = 0;
      for (int64_t i = 0; i < pixels; ++i) sum += products[i_frame * pixels + i];
      static_cast<acc*>(p_.dmix)[i_frame] = acc(-sum);
    }
  }

  // (4)
  void weight_gradient() {
    const Tiling tiling(s_, s_.Ci);
    const int64_t taps = s_.temporal ? 1 : 3, rows = taps * s_.Ci, Co = s_.Co;
    const int64_t line = tiling.operand_columns() * s_.Ci;
    const int64_t h_size = tiling.largest() * kProducts * line, slab = min_of(tiling.count(), kSlabTiles);
    const GemmPanels<acc> largest = {nullptr, tiling.largest() * tiling.columns(), Co};
    Scratch<acc> h(slab * h_size), dy(slab * kProducts * largest.size());
    Scratch<acc> sums(kProducts * rows * Co);
    sums.zero(kProducts * rows * Co);
    const int64_t blocks = ceil_div(rows, kWeightRows), panels = largest.count();
    for (int64_t first = 0; first < tiling.count(); first += kSlabTiles) {
      const int64_t count = min_of(kSlabTiles, tiling.count() - first);
      const auto dy_panels = [&](int64_t i, int64_t product) -> GemmPanels<acc> {
        const int64_t positions = tiling[first + i].count * tiling.columns();
        return {dy + (i * kProducts + product) * largest.size(), positions, Co};
      };
      parallel_for(0, 2 * count, 4 * tiling.largest() * tiling.columns() * min_of(s_.Ci, Co), [&](int64_t task) {
        const int64_t i = task / 2;
        if (task % 2 == 0) {
          const auto fill = [&](const Pixel& at, acc* to) { fill_h(at, to); };
          fill_operand(tiling, tiling[first + i], s_.Ci, fill, h + i * h_size);
        } else {
          transform_dy(tiling, tiling[first + i], largest.size(), dy_panels(i, 0).count(), dy + i * kProducts * largest.size());
        }
      });
      parallel_for(0, kProducts * blocks * panels, min_of(kWeightRows, rows) * count * largest.K * kGemmColumns<acc>, [&](int64_t task) {
        const int64_t product = task / (blocks * panels), m = task / panels % blocks * kWeightRows;
        acc* to = sums + (product * rows + m) * Co;
        const auto add = [&](int64_t row, int64_t n, Vec<acc> value, int64_t part) {
          store_part(to + row * Co + n, value + load_part(to + row * Co + n, part), part);
        };
        for (int64_t i = 0; i < count; ++i) {
          const acc* from = h + i * h_size + product * line + m;
          gemm<acc>(
              min_of(kWeightRows, rows - m), {tiling[first + i].count, tiling.columns(), kProducts * line, s_.Ci},
              [&](int64_t row) { return from + row; }, dy_panels(i, product), task % panels, task % panels + 1, add);
        }
      });
    }
    parallel_for(0, s_.Ci, 9 * Co, [&](int64_t ci) { store_weight(ci, taps, sums); });
  }

  // dy (4, panels of a tile), transformed, zeros beyond the plane and in the columns from Co on; products size apart.
  void transform_dy(const Tiling& tiling, const OutputTile& tile, int64_t size, int64_t panels, acc* to) const {
    constexpr int64_t kColumns = kGemmColumns<acc>;
    const int64_t Co = s_.Co, columns = tiling.columns(), positions = tile.count * columns;
    Scratch<acc> rows(2 * panels * kColumns);
    acc* row[2] = {rows.get(), rows + panels * kColumns};
    for (int64_t position = 0; position < positions; ++position, to += kColumns) {
      const int64_t column = position % columns;
      const Unit unit = tiling.unit(tile.first + position / columns);
      for (int64_t i = 0; i < 2; ++i) {
        const bool inside = column < tiling.end(unit, 0) && tiling.has_row(unit.row + i);
        if (inside) fill_dy(tiling.pixel(unit, unit.row + i, column), row[i]);
        for (int64_t c = inside ? Co : 0; c < panels * kColumns; ++c) row[i][c] = 0;
      }
      for (int64_t c = 0; c < panels * kColumns; c += kLanes<acc>) {
        const Vec<acc> dy0 = load_vector(row[0] + c), dy1 = load_vector(row[1] + c);
        acc* at = to + c / kColumns * positions * kColumns + c % kColumns;
        store_vector(at, dy0);
        store_vector(at + size, dy0 + dy1);
        store_vector(at + 2 * size, dy0 - dy1);
        store_vector(at + 3 * size, -dy1);
      }
    }
  }

  // dweight of an input channel from sums (4, taps, Ci, Co).
  void store_weight(int64_t ci, int64_t taps, const acc* sums) const {
    const int64_t product = taps * s_.Ci * s_.Co;
    for (int64_t tap = 0; tap < taps; ++tap) {
      for (int64_t co = 0; co < s_.Co; ++co) {
        const acc* u = sums + (tap * s_.Ci + ci) * s_.Co + co;
        const acc even = acc(0.5) * (u[product] + u[2 * product]), odd = acc(0.5) * (u[product] - u[2 * product]);
        T* to = static_cast<T*>(p_.dweight) + (co * s_.Ci + ci) * 3 * taps + tap;
        to[0] = from_acc<T>(u[0] + even);
        to[taps] = from_acc<T>(odd);
        to[2 * taps] = from_acc<T>(even + u[3 * product]);
      }
    }
  }

  // A pixel of dx or dh.
  template <class To>
  struct Gradient {
    To* to;

    void prefetch(int64_t n) const { __builtin_prefetch(to + n, 1); }
    void take(int64_t n, Vec<acc> y, int64_t part) const { store_part(to + n, y, part); }
  };

  // (5)
  void input_gradient() {
    const int64_t Ci = s_.Ci, count = s_.B * s_.T * s_.H * s_.W * Ci;
    const bool bare = p_.norm.kind == NormKind::None && !p_.norm.silu;
    const TransformedWeight<T> weight(p_.weight, s_, true);
    Scratch<acc> dh(bare ? 0 : count);
    const auto fill = [&](const Pixel& i, acc* dy) { fill_dy(i, dy); };
    const auto at = [&](const Pixel& i) { return (((i.b * s_.T + i.t) * s_.H + i.h) * s_.W + i.w) * Ci; };
    if (bare) {
      convolve(s_, weight, fill, [&](const Pixel& i) { return Gradient<T>{static_cast<T*>(p_.dx) + at(i)}; });
    } else {
      convolve(s_, weight, fill, [&](const Pixel& i) { return Gradient<acc>{dh + at(i)}; });
    }
    if (!bare) norm_backward(dh);
  }

  void norm_backward(const acc* dh) {
    NormActBackwardParams norm = {};
    norm.grad = dh;
    norm.x = p_.x;
    norm.dx = p_.dx;
    norm.dweight = p_.dnorm_weight;
    norm.dbias = p_.dnorm_bias;
    norm.dscale = p_.dscale;
    norm.dshift = p_.dshift;
    norm.B = s_.B, norm.T = s_.T, norm.H = s_.H, norm.W = s_.W, norm.C = s_.Ci;
    norm.stride_grad = {s_.T * s_.H * s_.W * s_.Ci, s_.H * s_.W * s_.Ci, s_.W * s_.Ci, s_.Ci};
    norm.stride_x = p_.stride_x;
    norm.norm = p_.norm;
    norm.dtype = p_.dtype;
    norm.grad_is_acc = true;
    cpu_norm_act_backward(norm);
  }

  const NormActConvBackwardParams& p_;
  const ConvSizes& s_;
  Prologue<acc> prologue_;
  Epilogue<acc> epilogue_;
};

}  // namespace

void cpu_norm_act_conv_backward(const NormActConvBackwardParams& p) {
  dispatch(p.dtype, [&](auto tag) { ConvBackward<typename decltype(tag)::type>(p).run(); });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
