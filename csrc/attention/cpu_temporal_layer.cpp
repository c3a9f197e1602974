// temporal_layer on the CPU, forward and backward: cpu_layer.h with blocks of all frames of some neighbouring pixels.
//                                                                                            contract: DESIGN.md 4
//   block   about kBlockRows rows, pixel by pixel, a multiple of the rows of a product's tile where pixels allow
#include "attention/cpu_kernels.h"
#include "attention/cpu_layer_bwd.h"
#include "attention/cpu_layer_fwd.h"
#include "attention/cpu_sequence.h"
#include "common/dispatch.h"

namespace vdiff {
inline namespace VDIFF_ISA {
namespace {

constexpr int64_t kWantedRows = 120;

template <class acc>
class TemporalSequences {
 public:
  explicit TemporalSequences(const TemporalAttentionParams& p)
      : p_(p), pixels_(p.B * p.H * p.W), block_pixels_(pixels_of_block(p.T)), rotation_(p.T * p.R) {
    fill_rotation();
  }

  const TemporalAttentionParams& params() const { return p_; }
  int64_t blocks() const { return ceil_div(pixels_, block_pixels_); }
  int64_t max_rows() const { return block_pixels_ * p_.T; }
  int64_t rows(int64_t block) const { return pixels_in(block) * p_.T; }
  int64_t bias_entries() const { return p_.bias.relative ? p_.T + p_.S - 1 : p_.T * p_.S; }

  Place place(int64_t block, int64_t r) const {
    const int64_t pixel = block * block_pixels_ + r / p_.T;
    return {pixel / p_.W / p_.H, r % p_.T, pixel / p_.W % p_.H, pixel % p_.W};
  }

  // Of a contiguous (B, T, H, W).
  int64_t image_row(const Place& at) const { return ((at.b * p_.T + at.t) * p_.H + at.h) * p_.W + at.w; }

  // Head n of a block; lse (R,), null: not wanted.
  void attend(int64_t block, int64_t n, const HeadRows<acc>& rows, const StridedRows<acc>& out, acc* lse) const {
    SequenceForward<acc> forward(p_.T, p_.D);
    for (int64_t i = 0; i < pixels_in(block); ++i) {
      const Sequence<acc> sequence = sequence_of(block, i, n, rows);
      forward.load(sequence);
      forward.attend(sequence, 0, p_.T, view<acc>(out, i), lse ? lse + i * p_.T : nullptr, 1);
    }
  }

  void attend_backward(
      int64_t block, int64_t n, const HeadRows<acc>& rows, const StridedRows<acc>&, const acc* lse, const StridedRows<acc>& grad_out,
      const HeadRows<acc>& grads, double* dbias) const {
    SequenceBackward<acc> backward(p_.T, p_.T, p_.D);
    Scratch<int64_t> columns(p_.T);
    const BiasLayout layout = p_.bias.relative ? layout_of(1, 1) : layout_of(p_.T, 1);
    for (int64_t j = 0; j < p_.T; ++j) columns[j] = layout.column.at(j);
    for (int64_t i = 0; i < pixels_in(block); ++i) {
      const Sequence<acc> sequence = sequence_of(block, i, n, rows);
      backward.begin(sequence);
      backward.add_queries(
          sequence, p_.T, view<const acc>(grad_out, i), lse + i * p_.T, 1, view<acc>(grads.q, i),
          BiasSums<acc>{dbias, nullptr, layout, columns});
      backward.finish(sequence, view<acc>(grads.k, i), view<acc>(grads.v, i));
    }
  }

 private:
  static int64_t pixels_of_block(int64_t T) {
    int64_t step = 1;
    while (step < kGemmRows && step * T % kGemmRows != 0) ++step;
    return max_of(step, kWantedRows / T / step * step);
  }

  int64_t pixels_in(int64_t block) const { return min_of(block_pixels_, pixels_ - block * block_pixels_); }

  void fill_rotation() {
    const acc* angles = static_cast<const acc*>(p_.rotary);
    for (int64_t t = 0; angles && t < p_.T; ++t)
      for (int64_t m = 0; m < p_.R / 2; ++m) {
        const acc angle = angles[t * p_.stride_rotary_t + m * p_.stride_rotary_r];
        rotation_[t * p_.R + 2 * m] = cos_of(angle);
        rotation_[t * p_.R + 2 * m + 1] = sin_of(angle);
      }
  }

  template <class U>
  RowView<U> view(const StridedRows<acc>& rows, int64_t i) const {
    return {rows[i * p_.T], {1, rows.stride, 0}};
  }

  BiasLayout layout_of(int64_t stride_0, int64_t stride_1) const {
    if (!p_.bias.relative) return dense_bias_layout(p_.S, stride_0, stride_1);
    return {(p_.T - 1) * stride_1, {1, -stride_1, 0}, {p_.S, 0, stride_1}};
  }

  Sequence<acc> sequence_of(int64_t block, int64_t i, int64_t n, const HeadRows<acc>& rows) const {
    Sequence<acc> sequence{};
    sequence.q = view<const acc>(rows.q, i);
    sequence.k = view<const acc>(rows.k, i);
    sequence.v = view<const acc>(rows.v, i);
    sequence.S = p_.T;
    sequence.D = p_.D;
    sequence.scale = acc(p_.scale);
    if (p_.bias.data) {
      sequence.bias = head_bias(p_.bias, n);
      sequence.bias_dtype = p_.bias.dtype;
      sequence.bias_layout = layout_of(p_.bias.stride_0, p_.bias.stride_1);
    }
    sequence.causal = p_.causal;
    if (p_.focus_present) sequence.isolated = p_.focus_present + place(block, i * p_.T).b * p_.stride_focus_b;
    sequence.stride_isolated = p_.stride_focus_t;
    if (p_.rotary) sequence.rotation = rotation_.get();
    sequence.rotary_pairs = p_.R / 2;
    return sequence;
  }

  const TemporalAttentionParams& p_;
  const int64_t pixels_, block_pixels_;
  Scratch<acc> rotation_;  // (T, R/2, 2) cos, sin
};

}  // namespace

void cpu_temporal_layer(const TemporalLayerFwdParams& params) {
  dispatch(params.attention.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    layer_forward<T, TemporalSequences<acc_t<T>>>(params);
  });
}

void cpu_temporal_layer_backward(const TemporalLayerBwdParams& params) {
  dispatch(params.attention.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    LayerBackward<T, TemporalSequences<acc_t<T>>, TemporalAttentionParams>(params).run();
  });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
