// norm_act_conv backward.                                                      contract: params.h, NormActConvBackwardParams
//
//   task     a tile of pixels (tiles.h) for dx, dmix and the operands of dweight; kWeightRows rows of dweight; a band of
//            pixels of a frame for dbias and dtemb
//   scratch  dx: dh (B, T, H, W, Ci) acc; dweight: one sum in acc, and operands h and dy of kSlabTiles tiles
//   acc      acc_t; double across pixels for dbias, dtemb and dmix
//
//   dy      = (1 - mix) grad                                                                          (1)
//   dtemb   = sum_hw(dy);  dbias = sum_bt(dtemb)                                                      (2)
//   dmix    = -sum(grad y),  y = conv(h) + bias + temb computed again                                 (3)
//   dweight = sum over pixels of h^T dy, for every tap                                                (4)
//   dh      = conv(dy) with channels exchanged and taps turned round;  dx = norm and act backward     (5)
//
// Deterministic: tiles, slabs and bands follow from the sizes alone; a row of dweight is summed by one task at a time, slab
// after slab and tile after tile in order; every other sum runs in order, too.
#include "common/dispatch.h"
#include "conv/cpu_kernels.h"
#include "conv/epilogue.h"
#include "conv/tiles.h"
#include "norm/cpu_kernels.h"
#include "norm/prologue.h"

namespace vdiff {
inline namespace VDIFF_ISA {

namespace {

constexpr int64_t kBandPixels = 64;
constexpr int64_t kSlabTiles = 16;
constexpr int64_t kWeightRows = 48;

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
    for (int64_t c = 0; c < s_.Co; ++c) dy[c] = factor * to_acc(grad[c]);
  }

  // (2)
  void channel_sums() {
    const int64_t Co = s_.Co, frames = s_.B * s_.T, pixels = s_.H * s_.W, bands = ceil_div(pixels, kBandPixels);
    Scratch<double> band_sums(frames * bands * Co);
    parallel_for(0, frames * bands, [&](int64_t task) {
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

  // (3)
  void mix_gradient() {
    const int64_t frames = s_.B * s_.T, pixels = s_.H * s_.W;
    Scratch<acc> products(frames * pixels);  // (B, T, H, W): sum_c(grad y)
    const PackedWeight<T> weight(p_.weight, s_, false);
    const auto store = [&](const Pixel& i, const acc* y) {
      const T* grad = grad_at(i.b, i.t, i.h, i.w);
      const acc* offset = epilogue_.offset(i.b, i.t);
      products[(i.b * s_.T + i.t) * pixels + i.h * s_.W + i.w] =
          lane_sum<acc>(s_.Co, [&](int64_t c) { return to_acc(grad[c]) * (y[c] + offset[c]); });
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
    const Tiles tiles(s_, s_.Ci);
    const int64_t taps = s_.temporal ? 1 : 3;
    const int64_t rows = kTapRows * taps * s_.Ci, stride = s_.Co;
    Scratch<acc> sum(rows * stride);  // (3, taps, Ci, stride)
    sum.zero(rows * stride);
    const int64_t slab = min_of(tiles.count(), kSlabTiles);
    int64_t h_count = 0, dy_count = 0;  // the largest tile's
    for (int64_t i = 0; i < slab; ++i) {
      h_count = max_of(h_count, tiles[i].operand_pixels() * s_.Ci);
      dy_count = max_of(dy_count, dy_panels(tiles[i], nullptr).size());
    }
    Scratch<acc> h(slab * h_count), dy(slab * dy_count);
    const int64_t blocks = ceil_div(taps * s_.Ci, kWeightRows);
    for (int64_t first = 0; first < tiles.count(); first += kSlabTiles) {
      const int64_t count = min_of(kSlabTiles, tiles.count() - first);
      parallel_for(0, count, [&](int64_t i) { fill_tile(tiles[first + i], h + i * h_count, dy + i * dy_count); });
      parallel_for(0, kTapRows * blocks, [&](int64_t task) {
        for (int64_t i = 0; i < count; ++i) {
          add_products(
              tiles[first + i], task / blocks, task % blocks * kWeightRows, stride, h + i * h_count, dy + i * dy_count, sum);
        }
      });
    }
    parallel_for(0, s_.Co, [&](int64_t co) {
      for (int64_t ci = 0; ci < s_.Ci; ++ci) {
        for (int64_t tap = 0; tap < kTapRows * taps; ++tap) {
          static_cast<T*>(p_.dweight)[(co * s_.Ci + ci) * kTapRows * taps + tap] =
              from_acc<T>(sum[(tap * s_.Ci + ci) * stride + co]);
        }
      }
    });
  }

  // A tile's dy as the products' right side: (rows * columns, Co).
  GemmPanels<acc> dy_panels(const Tile& tile, const acc* dy) const { return {dy, tile.rows * tile.columns, s_.Co}; }

  // h, the tile's operand, and dy in panels, zeros in the columns from Co on.
  void fill_tile(const Tile& tile, acc* h, acc* dy) const {
    fill_operand(s_, tile, s_.Ci, [&](const Pixel& i, acc* row) { fill_h(i, row); }, h);
    const GemmPanels<acc> panels = dy_panels(tile, dy);
    constexpr int64_t kColumns = kGemmColumns<acc>;
    Scratch<acc> pixel_dy(s_.Co);
    for (int64_t i = 0; i < panels.size(); ++i) dy[i] = 0;
    for (int64_t row = 0; row < tile.rows; ++row) {
      for (int64_t column = 0; column < tile.columns; ++column, dy += kColumns) {
        Pixel pixel;
        tile.locate(s_, row, column, pixel);
        fill_dy(pixel, pixel_dy);
        for (int64_t c = 0; c < s_.Co; ++c) dy[c / kColumns * panels.K * kColumns + c % kColumns] = pixel_dy[c];
      }
    }
  }

  // Rows [first, first + kWeightRows) of tap row i_tap of the sum += the tile's h^T dy.
  void add_products(
      const Tile& tile, int64_t i_tap, int64_t first, int64_t stride, const acc* h, const acc* dy, acc* sum) const {
    const int64_t line = tile.operand_columns() * s_.Ci, depth = tile.tap_columns * s_.Ci;
    const acc* from = h + i_tap * line + first;
    acc* to = sum + (i_tap * depth + first) * stride;
    const auto add = [&](int64_t m, int64_t n, Vec<acc> value, int64_t count) {
      store_part(to + m * stride + n, value + load_part(to + m * stride + n, count), count);
    };
    gemm<acc>(
        min_of(kWeightRows, depth - first), {tile.rows, tile.columns, line, s_.Ci}, [&](int64_t m) { return from + m; },
        dy_panels(tile, dy), add);
  }

  // (5)
  void input_gradient() {
    const int64_t Ci = s_.Ci, count = s_.B * s_.T * s_.H * s_.W * Ci;
    const bool bare = p_.norm.kind == NormKind::None && !p_.norm.silu;
    const PackedWeight<T> weight(p_.weight, s_, true);
    Scratch<acc> dh(bare ? 0 : count);
    const auto store = [&](const Pixel& i, const acc* y) {
      const int64_t at = (((i.b * s_.T + i.t) * s_.H + i.h) * s_.W + i.w) * Ci;
      if (bare) {
        for (int64_t c = 0; c < Ci; ++c) static_cast<T*>(p_.dx)[at + c] = from_acc<T>(y[c]);
      } else {
        for (int64_t c = 0; c < Ci; ++c) dh[at + c] = y[c];
      }
    };
    convolve(s_, weight, [&](const Pixel& i, acc* dy) { fill_dy(i, dy); }, store);
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
