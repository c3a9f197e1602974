// geglu backward.                                                              contract: params.h, GegluBackwardParams
//
//   task     kBlockRows rows of x, for the gradient of [a | b] and dx; then kBlockRows rows of dweight
//   scratch  of a slab of kSlabRows rows: x and [da | db] in acc, in panels; one sum of dweight; the weight twice
//   acc      acc_t; dbias adds its rows up in double
//   flops    16 * C * E per row
//
//   [a | b] = x weight^T + bias, computed again                                                       (1)
//   da      = grad * gelu(b);  db = grad * a * (cdf(b) + b density(b))                                (2)
//   dx      = [da | db] weight                                                                        (3)
//   dweight = [da | db]^T x;  dbias = sum of [da | db] over rows                                      (4)
//
// Panels of da and of db, (kSlabRows, kGemmColumns) each, zeros in the columns from E on, serve (3) by rows and (4) by columns.
// Deterministic: blocks and slabs follow from M alone; a row of dweight is summed by one task at a time, slab after slab.
#include "common/dispatch.h"
#include "feedforward/cpu/projection.h"
#include "feedforward/cpu_kernels.h"

namespace vdiff {
inline namespace VDIFF_ISA {

namespace {

constexpr int64_t kSlabRows = 1024;

template <class T>
class GegluBackward {
 public:
  using acc = acc_t<T>;

  explicit GegluBackward(const GegluBackwardParams& p)
      : p_(p),
        weight_(static_cast<const T*>(p.weight)),
        project_(weight_, p.stride_weight_e, p.stride_weight_c, static_cast<const acc*>(p.bias), p.C, p.E),
        padded_(project_.panels() * kColumns),
        back_(2 * padded_, p.C, p.stride_weight_c, [&](int64_t k) { return weight_ + row_of(k) * p.stride_weight_e; }),
        dweight_(2 * p.E * p.C),
        dbias_(2 * p.E),
        dab_(2 * padded_ * kSlabRows) {}

  void run() {
    const int64_t C = p_.C, E2 = 2 * p_.E;
    dweight_.zero(E2 * C);
    dbias_.zero(E2);
    for (int64_t first = 0; first < p_.M; first += kSlabRows) {
      const int64_t count = min_of(kSlabRows, p_.M - first);
      parallel_for(0, ceil_div(count, kBlockRows), 4 * min_of(kBlockRows, count) * C * E2, [&](int64_t task) {
        const int64_t begin = task * kBlockRows;
        row_gradients(first, begin, min_of(kBlockRows, count - begin));
      });
      const PackedPanels<acc> x(count, C, 1, [&](int64_t m) { return this->x(first + m); });
      parallel_for(0, ceil_div(E2, kBlockRows), min_of(kBlockRows, E2) * C * count, [&](int64_t task) { weight_gradients(task * kBlockRows, count, x); });
    }
    parallel_for(0, E2, C, [&](int64_t e) {
      T* to = static_cast<T*>(p_.dweight) + e * C;
      for (int64_t c = 0; c < C; ++c) to[c] = from_acc<T>(dweight_[e * C + c]);
      if (p_.dbias) static_cast<acc*>(p_.dbias)[e] = acc(dbias_[e]);
    });
  }

 private:
  static constexpr int64_t kColumns = kGemmColumns<acc>;

  const T* x(int64_t m) const { return static_cast<const T*>(p_.x) + m * p_.stride_x; }

  // The row of the weight that column k of the panels belongs to; beyond E, where these are 0, any.
  int64_t row_of(int64_t k) const { return k < padded_ ? min_of(k, p_.E - 1) : p_.E + min_of(k - padded_, p_.E - 1); }

  // Of row m of the slab, where column e of da (half 0) or db (half 1) lies.
  acc* gradient(int64_t half, int64_t e, int64_t m) {
    return dab_ + ((half * padded_ + e) / kColumns * kSlabRows + m) * kColumns + e % kColumns;
  }

  // Rows [begin, begin + count) of the slab that starts at row slab.
  void row_gradients(int64_t slab, int64_t begin, int64_t count) {
    const int64_t C = p_.C, first = slab + begin;
    Scratch<acc> x(count * C);
    load_rows(this->x(first), p_.stride_x, count, C, x.get());
    const T* grads = static_cast<const T*>(p_.grad) + first * p_.stride_grad;
    const auto take = [&](int64_t m, int64_t e, Vec<acc> a, Vec<acc> b, int64_t part) {  // (2)
      const Vec<acc> grad = load_part(grads + m * p_.stride_grad + e, part), cdf = normal_cdf(b);
      store_vector(gradient(0, e, begin + m), keep_lanes(grad * (b * cdf), part));
      store_vector(gradient(1, e, begin + m), keep_lanes(grad * a * (cdf + b * normal_density(b)), part));
      if (p_.E - e <= part && e % kColumns == 0) {  // the panel's other vector lies beyond E
        store_vector(gradient(0, e, begin + m) + kLanes<acc>, Vec<acc>{});
        store_vector(gradient(1, e, begin + m) + kLanes<acc>, Vec<acc>{});
      }
    };
    for (int64_t i = 0; i < project_.panels(); ++i) project_(x, count, i, take);  // (1)
    T* dx = static_cast<T*>(p_.dx) + first * C;
    const auto store = [&](int64_t m, int64_t c, Vec<acc> value, int64_t part) { store_part(dx + m * C + c, value, part); };
    const GemmDepth depth = {2 * project_.panels(), kColumns, kSlabRows * kColumns, 1};
    gemm<acc>(count, depth, [&](int64_t m) { return gradient(0, 0, begin + m); }, back_, store);  // (3)
  }

  // (4): rows [first, first + kBlockRows), from the slab's count rows, x (count, C).
  void weight_gradients(int64_t first, int64_t count, const GemmPanels<acc>& x) {
    const int64_t C = p_.C, E = p_.E, rows = min_of(kBlockRows, 2 * E - first);
    const auto column = [&](int64_t m) {
      const int64_t e = first + m;
      return e < E ? gradient(0, e, 0) : gradient(1, e - E, 0);
    };
    const auto add = [&](int64_t m, int64_t c, Vec<acc> value, int64_t part) {
      acc* to = dweight_ + (first + m) * C + c;
      store_part(to, value + load_part(to, part), part);
    };
    gemm<acc>(rows, {1, count, 0, kColumns}, column, x, add);
    for (int64_t m = 0; m < rows; ++m) {
      const acc* from = column(m);
      for (int64_t i = 0; i < count; ++i) dbias_[first + m] += double(from[i * kColumns]);
    }
  }

  const GegluBackwardParams& p_;
  const T* weight_;
  Projection<T> project_;
  int64_t padded_;          // E, to a whole number of panels
  PackedPanels<acc> back_;  // (2 padded, C)
  Scratch<acc> dweight_;    // (2E, C)
  Scratch<double> dbias_;   // (2E,)
  Scratch<acc> dab_;        // (2 padded / kGemmColumns, kSlabRows, kGemmColumns)
};

}  // namespace

void cpu_geglu_backward(const GegluBackwardParams& p) {
  dispatch(p.dtype, [&](auto tag) { GegluBackward<typename decltype(tag)::type>(p).run(); });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
