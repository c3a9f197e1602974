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
        transposed_(p.C, E2_, p.stride_weight_e, [&](int64_t c) { return weight() + c * p.stride_weight_c; }),
        weight_(E2_, p.C, p.stride_weight_c, [&](int64_t e) { return weight() + e * p.stride_weight_e; }),
        dweight_(E2_ * p.C),
        dbias_(E2_),
        x_(min_of(p.M, kSlabRows) * p.C),
        dab_(min_of(p.M, kSlabRows) * E2_) {}

  void run() {
    const int64_t blocks = ceil_div(E2_, kWeightRows);
    dweight_.zero(E2_ * p_.C);
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
      for (int64_t c = 0; c < p_.C; ++c) to[c] = from_acc<T>(dweight_[e * p_.C + c]);
      if (p_.dbias) static_cast<acc*>(p_.dbias)[e] = acc(dbias_[e]);
    });
  }

 private:
  const T* weight() const { return static_cast<const T*>(p_.weight); }

  // Rows [begin, begin + count) of the slab that starts at row slab.
  void row_gradients(int64_t slab, int64_t begin, int64_t count) {
    const int64_t C = p_.C, E = p_.E, first = slab + begin;
    acc* x = x_ + begin * p_.C;
    acc* ab = dab_ + begin * E2_;
    load_rows(static_cast<const T*>(p_.x) + first * p_.stride_x, p_.stride_x, count, C, x);
    project<acc>(x, transposed_, static_cast<const acc*>(p_.bias), count, ab);                            // (1)
    for (int64_t m = 0; m < count; ++m) {                                                                     // (2)
      const T* grad = static_cast<const T*>(p_.grad) + (first + m) * p_.stride_grad;
      acc* a = ab + m * E2_;
      acc* b = a + E;
      for (int64_t e = 0; e < E; ++e) {
        const acc g = to_acc(grad[e]), cdf = normal_cdf(b[e]);
        const acc db = g * a[e] * (cdf + b[e] * normal_density(b[e]));
        a[e] = g * (b[e] * cdf);
        b[e] = db;
      }
    }
    T* dx = static_cast<T*>(p_.dx) + first * C;
    const auto store = [&](int64_t m, int64_t c, Vec<acc> value, int64_t columns) {
      store_part(dx + m * C + c, value, columns);
    };
    gemm<acc>(count, unit_depth(E2_), [&](int64_t m) { return ab + m * E2_; }, weight_.panels(), store);  // (3)
  }

  // (4): rows [first, first + kWeightRows), from the slab's count rows.
  void weight_gradients(int64_t first, int64_t count) {
    const int64_t rows = min_of(kWeightRows, E2_ - first);
    const PackedPanels<acc> x(count, p_.C, 1, [&](int64_t m) { return x_.get() + m * p_.C; });
    acc* sums = dweight_ + first * p_.C;
    const auto add = [&](int64_t e, int64_t c, Vec<acc> value, int64_t columns) {
      acc* to = sums + e * p_.C + c;
      store_part(to, value + load_part(to, columns), columns);
    };
    gemm<acc>(rows, {1, count, 0, E2_}, [&](int64_t e) { return dab_.get() + first + e; }, x.panels(), add);
    for (int64_t m = 0; m < count; ++m) {
      for (int64_t e = first; e < first + rows; ++e) dbias_[e] += dab_[m * E2_ + e];
    }
  }

  const GegluBackwardParams& p_;
  int64_t E2_;
  PackedPanels<acc> transposed_, weight_;  // (C, 2E), (2E, C)
  Scratch<acc> dweight_;                   // (2E, C)
  Scratch<double> dbias_;                  // (2E,)
  Scratch<acc> x_, dab_;                   // (slab, C), (slab, 2E)
};

}  // namespace

void cpu_geglu_backward(const GegluBackwardParams& p) {
  dispatch(p.dtype, [&](auto tag) { GegluBackward<typename decltype(tag)::type>(p).run(); });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
