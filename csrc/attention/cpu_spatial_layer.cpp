// spatial_layer on the CPU, forward and backward: cpu_layer.h with the pixels of one frame as a block.
//                                                                                            contract: DESIGN.md 4
#include "attention/cpu_kernels.h"
#include "attention/cpu_layer_bwd.h"
#include "attention/cpu_layer_fwd.h"
#include "attention/cpu_sequence.h"
#include "common/dispatch.h"

namespace vdiff {
inline namespace VDIFF_ISA {
namespace {

template <class acc>
class SpatialSequences {
 public:
  explicit SpatialSequences(const SpatialAttentionParams& p) : p_(p), pixels_(p.H * p.W) {}

  const SpatialAttentionParams& params() const { return p_; }
  int64_t blocks() const { return p_.B * p_.T; }
  int64_t max_rows() const { return pixels_; }
  int64_t rows(int64_t) const { return pixels_; }
  int64_t bias_entries() const { return p_.bias.relative ? (2 * p_.H - 1) * (2 * p_.W - 1) : pixels_ * pixels_; }

  Place place(int64_t block, int64_t r) const { return {block / p_.T, block % p_.T, r / p_.W, r % p_.W}; }

  // Of a contiguous (B, T, H, W).
  int64_t image_row(const Place& at) const { return ((at.b * p_.T + at.t) * p_.H + at.h) * p_.W + at.w; }

  // Head n of a block; lse (R,), null: not wanted.
  void attend(int64_t, int64_t n, const HeadRows<acc>& rows, const StridedRows<acc>& out, acc* lse) const {
    SequenceForward<acc> forward(pixels_, p_.D);
    const Sequence<acc> sequence = sequence_of(n, rows);
    forward.load(sequence);
    forward.attend(sequence, 0, pixels_, view<acc>(out), lse, 1);
  }

  void attend_backward(
      int64_t, int64_t n, const HeadRows<acc>& rows, const StridedRows<acc>&, const acc* lse, const StridedRows<acc>& grad_out,
      const HeadRows<acc>& grads, double* dbias) const {
    SequenceBackward<acc> backward(pixels_, pixels_, p_.D);
    Scratch<int64_t> columns(pixels_);
    const BiasLayout layout = layout_of(p_.bias.relative ? 2 * p_.W - 1 : pixels_, 1);
    for (int64_t j = 0; j < pixels_; ++j) columns[j] = layout.column.at(j);
    const Sequence<acc> sequence = sequence_of(n, rows);
    backward.begin(sequence);
    backward.add_queries(
        sequence, pixels_, view<const acc>(grad_out), lse, 1, view<acc>(grads.q), BiasSums<acc>{dbias, nullptr, layout, columns});
    backward.finish(sequence, view<acc>(grads.k), view<acc>(grads.v));
  }

 private:
  template <class U>
  RowView<U> view(const StridedRows<acc>& rows) const {
    return {rows.data, {1, rows.stride, 0}};
  }

  BiasLayout layout_of(int64_t stride_0, int64_t stride_1) const {
    if (!p_.bias.relative) return dense_bias_layout(pixels_, stride_0, stride_1);
    return {  // entry [jy - iy + H - 1, jx - ix + W - 1]
        (p_.H - 1) * stride_0 + (p_.W - 1) * stride_1, {p_.W, -stride_0, -stride_1}, {p_.W, stride_0, stride_1}};
  }

  Sequence<acc> sequence_of(int64_t n, const HeadRows<acc>& rows) const {
    Sequence<acc> sequence{};
    sequence.q = view<const acc>(rows.q);
    sequence.k = view<const acc>(rows.k);
    sequence.v = view<const acc>(rows.v);
    sequence.S = pixels_;
    sequence.D = p_.D;
    sequence.scale = acc(p_.scale);
    if (p_.bias.data) {
      sequence.bias = head_bias(p_.bias, n);
      sequence.bias_dtype = p_.bias.dtype;
      sequence.bias_layout = layout_of(p_.bias.stride_0, p_.bias.stride_1);
    }
    return sequence;
  }

  const SpatialAttentionParams& p_;
  const int64_t pixels_;
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
