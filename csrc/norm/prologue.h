// h = act(norm(x)), one pixel at a time, and what its backward needs. An interface of this family: the CPU kernels of
// conv and of the attention layers normalise by it as they read.
// No torch, no STL.
//
//   n = (x - mean) * rstd         normalize    layer, rms: mean and rstd of the pixel; group: from tables (rms: mean = 0)
//   u = n * gain + offset         affine       gain = weight (1 + scale), offset = bias (1 + scale) + shift
//   h = act(u)                    activate
//
// The mean is subtracted first, not folded into the offset: x may be large beside its deviation.
#pragma once

#include <math.h>

#include "common/cpu/parallel.h"
#include "common/cpu/scratch.h"
#include "common/cpu/simd.h"
#include "norm/params.h"

namespace vdiff {
inline namespace VDIFF_ISA {

// sum over i of value(i, part), vectors of which the lanes from part on are 0.
template <class acc, class Value>
[[gnu::always_inline]] inline acc sum_vectors(int64_t count, const Value& value) {
  Vec<acc> sum = {};
  for_vectors<acc>(count, [&](int64_t i, int64_t part) { sum += value(i, part); });
  return sum_of(sum);
}

template <class acc>
class Prologue {
 public:
  Prologue(const NormParams& norm, int64_t B, int64_t T, int64_t C)
      : kind_(norm.kind),
        silu_(norm.silu),
        clip_(norm.clip),
        has_affine_(norm.weight || norm.bias || norm.scale || norm.shift),
        T_(T),
        C_(C),
        eps_(norm.eps),
        gain_(has_affine_ ? B * C : 0),
        offset_(has_affine_ ? B * C : 0),
        mean_(kind_ == NormKind::Group ? units(B) * C : 0),
        rstd_(kind_ == NormKind::Group ? units(B) * C : 0) {
    if (has_affine_) fill_affine(norm, B);
    if (kind_ == NormKind::Group && C > 0) {
      parallel_for(0, units(B), 2 * frames_per_unit() * C, [&](int64_t i_u) { fill_group(norm, i_u); });
    }
  }

  NormKind kind() const { return kind_; }
  bool silu() const { return silu_; }
  bool has_affine() const { return has_affine_; }

  // Group statistics are per unit: a frame, or a clip.
  int64_t units(int64_t B) const { return clip_ ? B : B * T_; }
  int64_t frames_per_unit() const { return clip_ ? T_ : 1; }
  int64_t unit(int64_t i_b, int64_t i_t) const { return clip_ ? i_b : i_b * T_ + i_t; }
  const acc* gain(int64_t i_b) const { return gain_.get() + i_b * C_; }      // (C,) where has_affine
  const acc* offset(int64_t i_b) const { return offset_.get() + i_b * C_; }  // (C,) where has_affine
  const acc* mean(int64_t i_u) const { return mean_.get() + i_u * C_; }      // (C,) where kind is Group
  const acc* rstd(int64_t i_u) const { return rstd_.get() + i_u * C_; }      // (C,) where kind is Group

  // n (C,) from a pixel's x (C,). Returns the pixel's rstd for layer and rms, else 1.
  template <class T>
  acc normalize(const T* x, int64_t i_b, int64_t i_t, acc* n) const {
    if (kind_ == NormKind::Group) {
      const acc* mean = this->mean(unit(i_b, i_t));
      const acc* rstd = this->rstd(unit(i_b, i_t));
      for_vectors<acc>(C_, [&](int64_t c, int64_t part) {
        store_part(n + c, (load_part(x + c, part) - load_part(mean + c, part)) * load_part(rstd + c, part), part);
      });
      return 1;
    }
    if (kind_ == NormKind::None) {
      for_vectors<acc>(C_, [&](int64_t c, int64_t part) { store_part(n + c, load_part(x + c, part), part); });
      return 1;
    }
    acc first = 0, mean = 0;  // mean: of x - first, corrects the rounding of first
    if (kind_ == NormKind::Layer) {
      first = sum_vectors<acc>(C_, [&](int64_t c, int64_t part) { return load_part(x + c, part); }) / acc(C_);
      mean = sum_vectors<acc>(C_, [&](int64_t c, int64_t part) {
               return keep_lanes(load_part(x + c, part) - first, part);
             }) / acc(C_);
    }
    const acc square = sum_vectors<acc>(C_, [&](int64_t c, int64_t part) {
                         const Vec<acc> d = load_part(x + c, part) - first - mean;
                         return keep_lanes(d * d, part);
                       }) / acc(C_);
    const acc rstd = acc(1 / sqrt(double(square) + eps_));
    for_vectors<acc>(C_, [&](int64_t c, int64_t part) {
      store_part(n + c, (load_part(x + c, part) - first - mean) * rstd, part);
    });
    return rstd;
  }

  // h (C,) from a pixel's x (C,).
  template <class T>
  void apply(const T* x, int64_t i_b, int64_t i_t, acc* h) const {
    if (kind_ == NormKind::Group) {
      has_affine_ ? silu_ ? apply_group<true, true>(x, i_b, i_t, h) : apply_group<true, false>(x, i_b, i_t, h)
                  : silu_ ? apply_group<false, true>(x, i_b, i_t, h) : apply_group<false, false>(x, i_b, i_t, h);
      return;
    }
    normalize(x, i_b, i_t, h);
    if (!has_affine_ && !silu_) return;
    for_vectors<acc>(C_, [&](int64_t c, int64_t part) {
      const Vec<acc> u = affine(load_part(h + c, part), i_b, c, part);
      store_part(h + c, silu_ ? u * sigmoid_of(u) : u, part);
    });
  }

  // u of the channels from c on, from their n.
  [[gnu::always_inline]] Vec<acc> affine(Vec<acc> n, int64_t i_b, int64_t c, int64_t part) const {
    return has_affine_ ? n * load_part(gain(i_b) + c, part) + load_part(offset(i_b) + c, part) : n;
  }

  // du = dh act'(u)
  [[gnu::always_inline]] Vec<acc> activate_backward(Vec<acc> dh, Vec<acc> u) const {
    if (!silu_) return dh;
    const Vec<acc> sigmoid = sigmoid_of(u);
    return dh * (sigmoid * (1 + u * (1 - sigmoid)));
  }

  // dn = du gain, of the channels from c on.
  [[gnu::always_inline]] Vec<acc> gained(const acc* du, int64_t i_b, int64_t c, int64_t part) const {
    const Vec<acc> value = load_part(du + c, part);
    return has_affine_ ? value * load_part(gain(i_b) + c, part) : value;
  }

  // dx of a pixel from its n and du, for what normalises a pixel by itself: rstd (dn - mean(dn) - n mean(dn n)), rms without
  // mean(dn). dx may be du.
  template <class T>
  void normalize_backward(int64_t i_b, acc rstd, const acc* n, const acc* du, T* dx) const {
    acc mean_n = 0, mean_1 = 0;
    if (kind_ != NormKind::None) {
      mean_n = sum_vectors<acc>(C_, [&](int64_t c, int64_t part) {
                 return gained(du, i_b, c, part) * load_part(n + c, part);
               }) / acc(C_);
    }
    if (kind_ == NormKind::Layer) {
      mean_1 = sum_vectors<acc>(C_, [&](int64_t c, int64_t part) { return gained(du, i_b, c, part); }) / acc(C_);
    }
    for_vectors<acc>(C_, [&](int64_t c, int64_t part) {
      store_part(dx + c, rstd * (gained(du, i_b, c, part) - mean_1 - load_part(n + c, part) * mean_n), part);
    });
  }

 private:
  // apply() for group norms, by far the most frequent, in one pass.
  template <bool kAffine, bool kSilu, class T>
  void apply_group(const T* x, int64_t i_b, int64_t i_t, acc* h) const {
    const int64_t i_u = unit(i_b, i_t);
    const acc *mean = this->mean(i_u), *rstd = this->rstd(i_u), *gain = this->gain(i_b), *offset = this->offset(i_b);
    for_vectors<acc>(C_, [&](int64_t c, int64_t part) {
      Vec<acc> u = (load_part(x + c, part) - load_part(mean + c, part)) * load_part(rstd + c, part);
      if (kAffine) u = u * load_part(gain + c, part) + load_part(offset + c, part);
      store_part(h + c, kSilu ? u * sigmoid_of(u) : u, part);
    });
  }

  void fill_affine(const NormParams& norm, int64_t B) {
    const acc* weight = static_cast<const acc*>(norm.weight);
    const acc* bias = static_cast<const acc*>(norm.bias);
    const acc* scale = static_cast<const acc*>(norm.scale);
    const acc* shift = static_cast<const acc*>(norm.shift);
    for (int64_t i_b = 0; i_b < B; ++i_b) {
      for (int64_t c = 0; c < C_; ++c) {
        const int64_t i = i_b * C_ + c;
        const acc factor = 1 + (scale ? scale[i] : 0);
        gain_[i] = (weight ? weight[c] : 1) * factor;
        offset_[i] = (bias ? bias[c] : 0) * factor + (shift ? shift[i] : 0);
      }
    }
  }

  // mean_g = avg(mean_c), var_g = avg(var_c + (mean_c - mean_g)^2), over the group's channels and the unit's frames; the means
  // from the first of them on, that their size cancels nothing.
  void fill_group(const NormParams& norm, int64_t i_u) {
    const int64_t frames = frames_per_unit();
    const int64_t width = C_ / norm.groups;
    const acc* stats = static_cast<const acc*>(norm.stats) + i_u * frames * C_ * 2;  // (frames, C, 2)
    for (int64_t g = 0; g < norm.groups; ++g) {
      const double first = stats[2 * g * width];
      double offsets = 0, squares = 0, variances = 0;
      for (int64_t t = 0; t < frames; ++t) {
        for (int64_t c = g * width; c < (g + 1) * width; ++c) {
          const double offset = stats[(t * C_ + c) * 2] - first;
          offsets += offset;
          squares += offset * offset;
          variances += stats[(t * C_ + c) * 2 + 1];
        }
      }
      const double count = double(frames * width), shift = offsets / count;
      const double spread = squares / count - shift * shift;
      const acc rstd = acc(1 / sqrt((spread < 0 ? 0 : spread) + variances / count + eps_));
      for (int64_t c = g * width; c < (g + 1) * width; ++c) {
        mean_[i_u * C_ + c] = acc(first + shift);
        rstd_[i_u * C_ + c] = rstd;
      }
    }
  }

  NormKind kind_;
  bool silu_, clip_, has_affine_;
  int64_t T_, C_;
  double eps_;
  Scratch<acc> gain_, offset_;  // (B, C)
  Scratch<acc> mean_, rstd_;    // (units, C)
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
