// spatial_layer on the CPU, forward and backward: layer.h with the pixels of one frame as a block.
//                                                                                            contract: DESIGN.md 4
#include "attention/cpu/layer_bwd.h"
#include "attention/cpu/layer_fwd.h"
#include "attention/cpu/spatial.h"
#include "attention/cpu_kernels.h"
#include "common/dispatch.h"

namespace vdiff {
inline namespace VDIFF_ISA {
namespace {

template <class acc>
class SpatialSequences {
 public:
  explicit SpatialSequences(const SpatialAttentionParams& p) : p_(p), pixels_(p.H * p.W), keys_(p), bias_(p), table_(p) {}

  const SpatialAttentionParams& params() const { return p_; }
  int64_t blocks() const { return p_.B * p_.T; }
  int64_t max_rows() const { return pixels_; }
  int64_t rows(int64_t) const { return pixels_; }
  int64_t length() const { return pixels_; }
  int64_t bias_entries() const { return table_.entries; }

  BiasSums<acc> bias_sums(double* table) const {
    return {table + table_.origin, nullptr, table_.row.get(), table_.column.get()};
  }

  Place place(int64_t block, int64_t r) const { return {block / p_.T, block % p_.T, r / p_.W, r % p_.W}; }

  // Of a contiguous (B, T, H, W).
  int64_t image_row(const Place& at) const { return ((at.b * p_.T + at.t) * p_.H + at.h) * p_.W + at.w; }

  void turn(int64_t, acc, const Rows<acc>&) const {}  // no rotary embedding

  // A task's attention to sequences.
  class Forward {
   public:
    explicit Forward(const SpatialSequences& s) : s_(s), core_(s.p_, s.bias_, s.keys_.of(0)) {}

    bool masks() const { return s_.bias_.any(); }

    void attend(
        int64_t, int64_t n, const Rows<const acc>& q, const Rows<const acc>& k, const Rows<const acc>& v, bool finite,
        const Rows<acc>& out) {
      core_.attend(n, 0, s_.pixels_, q, k, v, finite, out, nullptr, 0);
    }

   private:
    const SpatialSequences& s_;
    SpatialForward<acc> core_;
  };

  class Backward {
   public:
    explicit Backward(const SpatialSequences& s) : s_(s), core_(s.p_, s.bias_) {}

    bool masks() const { return s_.bias_.any(); }

    template <class... Arguments>
    void differentiate(int64_t, int64_t n, const Arguments&... arguments) {
      core_.differentiate(n, s_.keys_.of(0), arguments...);
    }

   private:
    const SpatialSequences& s_;
    SpatialBackward<acc> core_;
  };

 private:
  const SpatialAttentionParams& p_;
  const int64_t pixels_;
  const AllSeenKeys keys_;
  const SpatialBias<acc> bias_;
  const SpatialTable table_;
};

}  // namespace

void cpu_spatial_layer(const SpatialLayerFwdParams& params) {
  dispatch(params.attention.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    layer_forward<T, SpatialSequences<acc_t<T>>>(params);
  });
}

void cpu_spatial_layer_backward(const SpatialLayerBwdParams& params) {
  dispatch(params.attention.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    LayerBackward<T, SpatialSequences<acc_t<T>>, SpatialAttentionParams>(params).run();
  });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
