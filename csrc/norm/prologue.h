// h = act(norm(x)), one pixel at a time, and what its backward needs. Shared by the norm and the conv kernels on the CPU.
// No torch, no STL.
//
//   n = (x - mean) * rstd         normalize    layer, rms: mean and rstd of the pixel; group: from tables (rms: mean = 0)
//   u = n * gain + offset         affine       gain = weight (1 + scale), offset = bias (1 + scale) + shift
//   h = act(u)                    activate
//
// The mean is subtracted first, not folded into the offset: x may be large beside its deviation.
#pragma once

#include "common/math.h"
#include "common/scratch.h"
#include "norm/params.h"

namespace vdiff {
inline namespace VDIFF_ISA {

// sum_i value(i), in eight fixed lanes: vectorises without reordering anything.
template <class acc, class Value>
acc lane_sum(int64_t count, const Value& value) {
  constexpr int64_t kLanes = 8;
  acc lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += value(i + lane);
  }
  for (int64_t lane = 0; i + lane < count; ++lane) lanes[lane] += value(i + lane);
  acc sum = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  return sum;
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
      for (int64_t i_u = 0; i_u < units(B); ++i_u) fill_group(norm, i_u);
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
  const acc* rstd(int64_t i_u) const { return rstd_.get() + i_u * C_; }      // (C,) where kind is Group

  // n (C,) from a pixel's x (C,). Returns the pixel's rstd for layer and rms, else 1.
  template <class T>
  acc normalize(const T* x, int64_t i_b, int64_t i_t, acc* n) const {
    if (kind_ == NormKind::Group) {
      const acc* mean = mean_.get() + unit(i_b, i_t) * C_;
      const acc* rstd = rstd_.get() + unit(i_b, i_t) * C_;
      for (int64_t c = 0; c < C_; ++c) n[c] = (to_acc(x[c]) - mean[c]) * rstd[c];
      return 1;
    }
    for (int64_t c = 0; c < C_; ++c) n[c] = to_acc(x[c]);
    if (kind_ == NormKind::None) return 1;
    acc mean = 0;  // of n, after a first mean has been taken off: the second corrects the rounding of the first
    if (kind_ == NormKind::Layer) {
      const acc first = lane_sum<acc>(C_, [&](int64_t c) { return n[c]; }) / acc(C_);
      for (int64_t c = 0; c < C_; ++c) n[c] -= first;
      mean = lane_sum<acc>(C_, [&](int64_t c) { return n[c]; }) / acc(C_);
    }
    const acc square = lane_sum<acc>(C_, [&](int64_t c) { return (n[c] - mean) * (n[c] - mean); }) / acc(C_);
    const acc rstd = acc(1 / sqrt(double(square) + eps_));
    for (int64_t c = 0; c < C_; ++c) n[c] = (n[c] - mean) * rstd;
    return rstd;
  }

  // u from n; u may be n.
  void affine(const acc* n, int64_t i_b, acc* u) const {
    if (has_affine_) {
      const acc* gain = this->gain(i_b);
      const acc* offset = this->offset(i_b);
      for (int64_t c = 0; c < C_; ++c) u[c] = n[c] * gain[c] + offset[c];
    } else if (u != n) {
      for (int64_t c = 0; c < C_; ++c) u[c] = n[c];
    }
  }

  void activate(acc* u) const {
    if (!silu_) return;
    for (int64_t c = 0; c < C_; ++c) u[c] = u[c] / (1 + exp_of(-u[c]));
  }

  // du = dh act'(u); du may be u.
  template <class G>
  void activate_backward(const G* dh, const acc* u, acc* du) const {
    if (!silu_) {
      for (int64_t c = 0; c < C_; ++c) du[c] = to_acc(dh[c]);
      return;
    }
    for (int64_t c = 0; c < C_; ++c) {
      const acc sigmoid = 1 / (1 + exp_of(-u[c]));
      du[c] = to_acc(dh[c]) * (sigmoid * (1 + u[c] * (1 - sigmoid)));
    }
  }

  template <class T>
  void apply(const T* x, int64_t i_b, int64_t i_t, acc* h) const {
    normalize(x, i_b, i_t, h);
    affine(h, i_b, h);
    activate(h);
  }

 private:
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

  // mean_g = avg(mean_c), var_g = avg(var_c + (mean_c - mean_g)^2), over the group's channels and the unit's frames.
  void fill_group(const NormParams& norm, int64_t i_u) {
    const int64_t frames = frames_per_unit();
    const int64_t width = C_ / norm.groups;
    const acc* stats = static_cast<const acc*>(norm.stats) + i_u * frames * C_ * 2;  // (frames, C, 2)
    for (int64_t g = 0; g < norm.groups; ++g) {
      double mean = 0, variance = 0;
      for (int64_t t = 0; t < frames; ++t) {
        for (int64_t c = g * width; c < (g + 1) * width; ++c) mean += stats[(t * C_ + c) * 2];
      }
      mean /= double(frames * width);
      for (int64_t t = 0; t < frames; ++t) {
        for (int64_t c = g * width; c < (g + 1) * width; ++c) {
          const double offset = stats[(t * C_ + c) * 2] - mean;
          variance += stats[(t * C_ + c) * 2 + 1] + offset * offset;
        }
      }
      variance /= double(frames * width);
      for (int64_t c = g * width; c < (g + 1) * width; ++c) {
        mean_[i_u * C_ + c] = acc(mean);
        rstd_[i_u * C_ + c] = acc(1 / sqrt(variance + eps_));
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
