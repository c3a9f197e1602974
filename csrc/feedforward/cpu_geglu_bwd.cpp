// geglu backward.                                                              contract: params.h, GegluBackwardParams
//
//   task     kBlockRows rows of x, for [a | b], its gradient and dx; then kWeightRows rows of dweight
//   scratch  of a slab of kSlabRows rows: x and [da | db] in acc; one sum of dweight; the weight twice, (C, 2E) and (2E, C)
//   acc      acc_t; dbias adds its slabs up in double
//
//   [a | b] = x weight^T + bias, computed again                                                       (1)
//   da      = grad * gelu(b);  db = grad * a * (cdf(b) + b density(b))                                (2)
//   dx      = [da | db] weight                                                                        (3)
//   dweight = [da | db]^T x;  dbias = sum of [da | db] over rows                                      (4)
//
// Deterministic: blocks and slabs follow from M alone; a row of dweight is summed by one task at a time, slab after slab.
#include "common/dispatch.h"
#include "feedforward/cpu_kernels.h"
#include "feedforward/projection.h"

namespace vdiff {
inline namespace VDIFF_ISA {

namespace {

constexpr int64_t kSlabRows = 1024;
constexpr int64_t kWeightRows = 32;

template <class T>
class GegluBackward {
 public:
  using acc = acc_t<T>;

  explicit GegluBackward(const GegluBackwardParams& p)
      : p_(p),
        E2_(2 * p.E),
        width_x_(gemm_stride<acc>(p.C)),
        width_ab_(gemm_stride<acc>(E2_)),
        transposed_(p.C * width_ab_),
        weight_(E2_ * width_x_),
        dweight_(E2_ * width_x_),
        dbias_(E2_),
        x_(min_of(p.M, kSlabRows) * width_x_),
        dab_(min_of(p.M, kSlabRows) * width_ab_) {}

  void run() {
    const int64_t blocks = ceil_div(E2_, kWeightRows);
    pack_weight();
    dweight_.zero(E2_ * width_x_);
    dbias_.zero(E2_);
    for (int64_t first = 0; first < p_.M; first += kSlabRows) {
      const int64_t count = min_of(kSlabRows, p_.M - first);
      parallel_for(0, ceil_div(count, kBlockRows), [&](int64_t task) {
        const int64_t begin = task * kBlockRows;
        row_gradients(first, begin, min_of(kBlockRows, count - begin));
      });
      parallel_for(0, blocks, [&](int64_t task) { weight_gradients(task * kWeightRows, count); });
    }
    parallel_for(0, E2_, [&](int64_t e) {
      T* to = static_cast<T*>(p_.dweight) + e * p_.C;
      for (int64_t c = 0; c < p_.C; ++c) to[c] = from_acc<T>(dweight_[e * width_x_ + c]);
      if (p_.dbias) static_cast<acc*>(p_.dbias)[e] = acc(dbias_[e]);
    });
  }

 private:
  void pack_weight() {
    const T* weight = static_cast<const T*>(p_.weight);
    pack_transposed(weight, p_.stride_weight_e, p_.stride_weight_c, E2_, p_.C, transposed_.get(), width_ab_);
    pack_transposed(weight, p_.stride_weight_c, p_.stride_weight_e, p_.C, E2_, weight_.get(), width_x_);
  }

  // Rows [begin, begin + count) of the slab that starts at row slab.
  void row_gradients(int64_t slab, int64_t begin, int64_t count) {
    const int64_t C = p_.C, E = p_.E, first = slab + begin;
    acc* x = x_ + begin * width_x_;
    acc* ab = dab_ + begin * width_ab_;
    load_rows(static_cast<const T*>(p_.x) + first * p_.stride_x, p_.stride_x, count, C, x, width_x_);
    project<acc>(x, width_x_, transposed_, static_cast<const acc*>(p_.bias), count, C, E2_, ab, width_ab_);  // (1)
    for (int64_t m = 0; m < count; ++m) {                                                                     // (2)
      const T* grad = static_cast<const T*>(p_.grad) + (first + m) * p_.stride_grad;
      acc* a = ab + m * width_ab_;
      acc* b = a + E;
      for (int64_t e = 0; e < E; ++e) {
        const acc g = to_acc(grad[e]), cdf = normal_cdf(b[e]);
        const acc db = g * a[e] * (cdf + b[e] * normal_density(b[e]));
        a[e] = g * (b[e] * cdf);
        b[e] = db;
      }
    }
    Scratch<acc> dx(count * width_x_);
    dx.zero(count * width_x_);
    gemm<acc>({1, count, gemm_columns<acc>(C), E2_, ab, 0, width_ab_, 1, weight_, width_x_, dx, 0, width_x_});  // (3)
    for (int64_t m = 0; m < count; ++m) {
      T* to = static_cast<T*>(p_.dx) + (first + m) * C;
      for (int64_t c = 0; c < C; ++c) to[c] = from_acc<T>(dx[m * width_x_ + c]);
    }
  }

  // (4): rows [first, first + kWeightRows), from the slab's count rows.
  void weight_gradients(int64_t first, int64_t count) {
    const int64_t rows = min_of(kWeightRows, E2_ - first);
    gemm<acc>(
        {1, rows, gemm_columns<acc>(p_.C), count, dab_ + first, 0, 1, width_ab_, x_, width_x_,
         dweight_ + first * width_x_, 0, width_x_});
    for (int64_t m = 0; m < count; ++m) {
      for (int64_t e = first; e < first + rows; ++e) dbias_[e] += dab_[m * width_ab_ + e];
    }
  }

  const GegluBackwardParams& p_;
  int64_t E2_, width_x_, width_ab_;
  Scratch<acc> transposed_, weight_, dweight_;  // (C, width_ab), (2E, width_x), (2E, width_x)
  Scratch<double> dbias_;                       // (2E,)
  Scratch<acc> x_, dab_;                        // (slab, width_x), (slab, width_ab)
};

}  // namespace

void cpu_geglu_backward(const GegluBackwardParams& p) {
  dispatch(p.dtype, [&](auto tag) { GegluBackward<typename decltype(tag)::type>(p).run(); });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
