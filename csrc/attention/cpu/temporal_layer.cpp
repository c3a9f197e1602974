// temporal_layer on the CPU, forward and backward: layer.h with blocks of all frames of some neighbouring pixels.
//                                                                                            contract: DESIGN.md 4
//   block   about kWantedRows rows, pixel by pixel, a multiple of the rows of a product's tile where pixels allow
#include "attention/cpu/layer_bwd.h"
#include "attention/cpu/layer_fwd.h"
#include "attention/cpu/temporal.h"
#include "attention/cpu_kernels.h"
#include "common/dispatch.h"

namespace vdiff {
inline namespace VDIFF_ISA {
namespace {

constexpr int64_t kWantedRows = 120;

template <class acc>
class TemporalSequences {
 public:
  explicit TemporalSequences(const TemporalAttentionParams& p)
      : p_(p),
        pixels_(p.B * p.H * p.W),
        block_pixels_(pixels_of_block(p.T)),
        rotation_(temporal_rotation<acc>(p)),
        row_(p.T, p.T, 0, p.bias.relative ? -1 : p.S),
        column_(p.S, p.S, 0, 1) {}

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

  BiasSums<acc> bias_sums(double* table) const {
    return {table + (p_.bias.relative ? p_.T - 1 : 0), nullptr, row_.get(), column_.get()};
  }

  int64_t length() const { return p_.T; }

  // The rotary embedding of R rows of whole sequences; direction -1 turns back.
  void turn(int64_t R, acc direction, const Rows<acc>& rows) const {
    for (int64_t r = 0; rotation_.any() && r < R; ++r) rotation_.turn(r % p_.T, direction, rows[r]);
  }

  // A task's attention to sequences.
  struct Forward : TemporalForward<acc> {
    explicit Forward(const TemporalSequences& sequences) : TemporalForward<acc>(sequences.p_) {}
  };
  struct Backward : TemporalBackward<acc> {
    explicit Backward(const TemporalSequences& sequences) : TemporalBackward<acc>(sequences.p_) {}
  };

 private:
  static int64_t pixels_of_block(int64_t T) {
    int64_t step = 1;
    while (step < kGemmRows && step * T % kGemmRows != 0) ++step;
    return max_of(step, kWantedRows / T / step * step);
  }

  int64_t pixels_in(int64_t block) const { return min_of(block_pixels_, pixels_ - block * block_pixels_); }

  const TemporalAttentionParams& p_;
  const int64_t pixels_, block_pixels_;
  const Rotation<acc> rotation_;
  const TableIndex row_, column_;  // of the bias gradient
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
