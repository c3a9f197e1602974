// norm_act backward: from dh, the gradient of h = act(norm(x)), to dx and the norm's parameters.
//                                                                              contract: params.h, NormActBackwardParams
//   task     a band of kBandPixels pixels of one frame, in pass 1 and in pass 2; a frame in the sum between them
//   scratch  per band and per frame 2 x C double; tables as in prologue.h
//   acc      acc_t within a pixel and across kRunPixels of them, double across more
//
//   n, u   = normalize(x), n * gain + offset;  du = dh * act'(u)                                        (1)
//   sum_n  = sum(du * n), sum_1 = sum(du)        per channel, over a band, then over a frame           (2)
//   layer  dx = rstd (dn - mean_C(dn) - n mean_C(dn n)),  dn = du * gain;   rms: without mean_C(dn)    (3)
//   group  the same, the means over the group's channels and the frame's or clip's pixels:
//          mean(dn) = sum_c(gain sum_1) / count,  mean(dn n) = sum_c(gain sum_n) / count               (4)
//   dweight = sum_b (1 + scale) sum_n     dbias  = sum_b (1 + scale) sum_1                              (5)
//   dscale  = weight sum_n + bias sum_1   dshift = sum_1
//
// Deterministic: bands follow from H*W alone; band sums add up in order.
#include "common/cpu/parallel.h"
#include "common/dispatch.h"
#include "norm/cpu_kernels.h"
#include "norm/prologue.h"

namespace vdiff {
inline namespace VDIFF_ISA {

namespace {

constexpr int64_t kBandPixels = 64;
constexpr int64_t kRunPixels = 16;

// G is the type of the incoming gradient: T or acc_t<T>.
template <class T, class G>
class Backward {
 public:
  using acc = acc_t<T>;

  explicit Backward(const NormActBackwardParams& p)
      : p_(p),
        prologue_(p.norm, p.B, p.T, p.C),
        frames_(p.B * p.T),
        pixels_(p.H * p.W),
        bands_(ceil_div(pixels_, kBandPixels)),
        group_(p.norm.kind == NormKind::Group),
        with_sums_(group_ || p.dweight || p.dbias || p.dscale || p.dshift),
        band_sums_(with_sums_ ? frames_ * bands_ * 2 * p.C : 0),
        frame_sums_(with_sums_ ? frames_ * 2 * p.C : 0),
        group_means_(group_ ? prologue_.units(p.B) * 2 * p.C : 0) {}

  void run() {
    parallel_for(0, frames_ * bands_, band_operations(), [&](int64_t task) { pass_1(task); });
    if (!with_sums_) return;
    parallel_for(0, frames_, 2 * bands_ * p_.C, [&](int64_t i_frame) { sum_frame(i_frame); });
    parameter_gradients();
    if (!group_ || p_.C == 0) return;
    parallel_for(0, prologue_.units(p_.B), 2 * prologue_.frames_per_unit() * p_.C, [&](int64_t i_u) { fill_group_means(i_u); });
    parallel_for(0, frames_ * bands_, band_operations(), [&](int64_t task) { pass_2(task); });
  }

 private:
  int64_t band_operations() const { return 8 * min_of(kBandPixels, pixels_) * p_.C; }

  // body(i_b, i_t, grad, x, dx) for every pixel of the task's band.
  template <class Body>
  void for_pixels(int64_t task, const Body& body) {
    const int64_t i_frame = task / bands_;
    const int64_t b = i_frame / p_.T, t = i_frame % p_.T;
    const int64_t begin = task % bands_ * kBandPixels;
    for (int64_t i = begin; i < min_of(begin + kBandPixels, pixels_); ++i) {
      body(
          b, t, static_cast<const G*>(p_.grad) + p_.stride_grad.at(b, t, i / p_.W, i % p_.W),
          static_cast<const T*>(p_.x) + p_.stride_x.at(b, t, i / p_.W, i % p_.W),
          static_cast<T*>(p_.dx) + (i_frame * pixels_ + i) * p_.C);
    }
  }

  // (1): n, du (C,); returns the pixel's rstd.
  acc differentiate(int64_t b, int64_t t, const G* grad, const T* x, acc* n, acc* du) {
    const acc rstd = prologue_.normalize(x, b, t, n);
    for_vectors<acc>(p_.C, [&](int64_t c, int64_t part) {
      const Vec<acc> u = prologue_.affine(load_part(n + c, part), b, c, part);
      store_part(du + c, prologue_.activate_backward(load_part(grad + c, part), u), part);
    });
    return rstd;
  }

  void pass_1(int64_t task) {
    const int64_t C = p_.C;
    Scratch<acc> n(C), du(C), run(2 * C);  // run: the sums of kRunPixels pixels
    double* sums = band_sums_ + (with_sums_ ? task * 2 * C : 0);
    int64_t pixels = 0;
    const auto flush = [&] {
      for (int64_t i = 0; i < 2 * C; ++i) sums[i] += double(run[i]);
      run.zero(2 * C);
      pixels = 0;
    };
    if (with_sums_) {
      for (int64_t i = 0; i < 2 * C; ++i) sums[i] = 0;
      run.zero(2 * C);
    }
    for_pixels(task, [&](int64_t b, int64_t t, const G* grad, const T* x, T* dx) {
      const acc rstd = differentiate(b, t, grad, x, n, du);
      if (with_sums_) {  // (2)
        for_vectors<acc>(C, [&](int64_t c, int64_t part) {
          const Vec<acc> d = load_part(du + c, part);
          store_part(run + c, load_part(run + c, part) + d * load_part(n + c, part), part);
          store_part(run + C + c, load_part(run + C + c, part) + d, part);
        });
        if (++pixels == kRunPixels) flush();
      }
      if (!group_) prologue_.normalize_backward(b, rstd, n.get(), du.get(), dx);
    });
    if (with_sums_) flush();
  }

  void sum_frame(int64_t i_frame) {
    const int64_t C = p_.C;
    double* sums = frame_sums_ + i_frame * 2 * C;
    for (int64_t i = 0; i < 2 * C; ++i) sums[i] = 0;
    for (int64_t band = 0; band < bands_; ++band) {
      const double* from = band_sums_ + (i_frame * bands_ + band) * 2 * C;
      for (int64_t i = 0; i < 2 * C; ++i) sums[i] += from[i];
    }
  }

  // (5)
  void parameter_gradients() {
    const int64_t C = p_.C;
    const NormParams& norm = p_.norm;
    Scratch<double> weight_sums(2 * C), clip_sums(2 * C);
    weight_sums.zero(2 * C);
    for (int64_t b = 0; b < p_.B; ++b) {
      clip_sums.zero(2 * C);
      for (int64_t t = 0; t < p_.T; ++t) {
        const double* from = frame_sums_ + (b * p_.T + t) * 2 * C;
        for (int64_t i = 0; i < 2 * C; ++i) clip_sums[i] += from[i];
      }
      for (int64_t c = 0; c < C; ++c) {
        const double sum_n = clip_sums[c], sum_1 = clip_sums[C + c];
        const double factor = norm.scale ? 1 + double(static_cast<const acc*>(norm.scale)[b * C + c]) : 1;
        const double weight = norm.weight ? static_cast<const acc*>(norm.weight)[c] : 1;
        const double bias = norm.bias ? static_cast<const acc*>(norm.bias)[c] : 0;
        weight_sums[c] += factor * sum_n;
        weight_sums[C + c] += factor * sum_1;
        if (p_.dscale) static_cast<acc*>(p_.dscale)[b * C + c] = acc(weight * sum_n + bias * sum_1);
        if (p_.dshift) static_cast<acc*>(p_.dshift)[b * C + c] = acc(sum_1);
      }
    }
    for (int64_t c = 0; c < C; ++c) {
      if (p_.dweight) static_cast<acc*>(p_.dweight)[c] = acc(weight_sums[c]);
      if (p_.dbias) static_cast<acc*>(p_.dbias)[c] = acc(weight_sums[C + c]);
    }
  }

  // (4): mean(dn n), mean(dn) of a unit, repeated for every channel of a group.
  void fill_group_means(int64_t i_u) {
    const int64_t C = p_.C, frames = prologue_.frames_per_unit(), width = C / p_.norm.groups;
    acc* means = group_means_ + i_u * 2 * C;
    for (int64_t g = 0; g < p_.norm.groups; ++g) {
      double mean_n = 0, mean_1 = 0;
      for (int64_t i = i_u * frames; i < (i_u + 1) * frames; ++i) {
        const double* sums = frame_sums_ + i * 2 * C;
        for (int64_t c = g * width; c < (g + 1) * width; ++c) {
          const double gain = prologue_.has_affine() ? prologue_.gain(i / p_.T)[c] : 1;
          mean_n += gain * sums[c];
          mean_1 += gain * sums[C + c];
        }
      }
      const double count = double(frames * width) * double(pixels_);
      for (int64_t c = g * width; c < (g + 1) * width; ++c) {
        means[c] = acc(mean_n / count);
        means[C + c] = acc(mean_1 / count);
      }
    }
  }

  void pass_2(int64_t task) {
    const int64_t C = p_.C;
    Scratch<acc> n(C), du(C);
    for_pixels(task, [&](int64_t b, int64_t t, const G* grad, const T* x, T* dx) {
      const acc* rstd = prologue_.rstd(prologue_.unit(b, t));
      const acc* mean_n = group_means_ + prologue_.unit(b, t) * 2 * C;
      const acc* mean_1 = mean_n + C;
      differentiate(b, t, grad, x, n, du);
      for_vectors<acc>(C, [&](int64_t c, int64_t part) {
        const Vec<acc> d = prologue_.gained(du, b, c, part) - load_part(mean_1 + c, part);
        store_part(dx + c, load_part(rstd + c, part) * (d - load_part(n + c, part) * load_part(mean_n + c, part)), part);
      });
    });
  }

  const NormActBackwardParams& p_;
  Prologue<acc> prologue_;
  int64_t frames_, pixels_, bands_;
  bool group_, with_sums_;
  Scratch<double> band_sums_;   // (frames, bands, 2, C): sum_n, sum_1
  Scratch<double> frame_sums_;  // (frames, 2, C)
  Scratch<acc> group_means_;    // (units, 2, C)
};

template <class T>
void norm_act_backward(const NormActBackwardParams& p) {
  if (p.grad_is_acc) {
    Backward<T, acc_t<T>>(p).run();
  } else {
    Backward<T, T>(p).run();
  }
}

}  // namespace

void cpu_norm_act_backward(const NormActBackwardParams& p) {
  dispatch(p.dtype, [&](auto tag) { norm_act_backward<typename decltype(tag)::type>(p); });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
