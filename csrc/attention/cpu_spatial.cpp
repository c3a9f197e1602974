// spatial_attention on the CPU, forward and backward: attention over a frame's pixels, or from them to a context.
// contract: DESIGN.md 4
//
//   math     cpu_sequence.h, with one sequence a (b, t, n): L = H * W queries, S keys
//   task     forward: kTaskQueries queries of a sequence, so that one image occupies every thread; each task widens k and v
//            anew, S * D beside its kTaskQueries * S * D * 4 operations;
//            backward: one head of a frame, or of all frames of a sample where these share their k and v; with dbias a
//            chunk of such units, of cpu_bias_gradient.h
//   scratch  a task's one sequence
//   acc      float, double for double; dbias in double
//   order    each query, each unit's gradients are computed by themselves, and chunks are set by shapes: bit-equal for every
//            number of threads
#include "attention/cpu_bias_gradient.h"
#include "attention/cpu_kernels.h"
#include "common/dispatch.h"

namespace vdiff {
inline namespace VDIFF_ISA {
namespace {

constexpr int64_t kTaskQueries = 64;

BiasLayout bias_layout(const SpatialAttentionParams& params, int64_t stride_0, int64_t stride_1) {
  if (!params.bias.relative) return dense_bias_layout(params.KH * params.KW, stride_0, stride_1);
  return {  // entry [jy - iy + H - 1, jx - ix + W - 1]
      (params.H - 1) * stride_0 + (params.W - 1) * stride_1,
      {params.W, -stride_0, -stride_1},
      {params.W, stride_0, stride_1}};
}

template <class T, class Pointer>
RowView<T> frame_pixels(const PixelRows<Pointer>& rows, int64_t width, int64_t b, int64_t t, int64_t n) {
  T* data = static_cast<T*>(rows.data);
  return {data + b * rows.stride_b + t * rows.stride_t + n * rows.stride_n, {width, rows.stride_h, rows.stride_w}};
}

template <class T>
Sequence<T> frame_sequence(const SpatialAttentionParams& params, int64_t b, int64_t t, int64_t n) {
  Sequence<T> sequence{};
  sequence.q = frame_pixels<const T>(params.q, params.W, b, t, n);
  sequence.k = frame_pixels<const T>(params.k, params.KW, b, t, n);
  sequence.v = frame_pixels<const T>(params.v, params.KW, b, t, n);
  sequence.S = params.KH * params.KW;
  sequence.D = params.D;
  sequence.scale = acc_t<T>(params.scale);
  if (params.bias.data) {
    sequence.bias = head_bias(params.bias, n);
    sequence.bias_dtype = params.bias.dtype;
    sequence.bias_layout = bias_layout(params, params.bias.stride_0, params.bias.stride_1);
  }
  return sequence;
}

// Where the sequence's row 0 lies in a contiguous (B, T, H, W, N); row i is i * N further.
int64_t lse_offset(const SpatialAttentionParams& params, int64_t b, int64_t t, int64_t n) {
  return (b * params.T + t) * params.H * params.W * params.N + n;
}

template <class T>
void attention_forward(const SpatialAttentionFwdParams& params) {
  using A = acc_t<T>;
  const int64_t L = params.H * params.W, S = params.KH * params.KW;
  const int64_t blocks = ceil_div(L, kTaskQueries);
  parallel_for(0, params.B * params.T * params.N * blocks, [&](int64_t task) {
    const int64_t begin = task % blocks * kTaskQueries, end = min_of(L, begin + kTaskQueries);
    const int64_t n = task / blocks % params.N, frame = task / blocks / params.N;
    const int64_t b = frame / params.T, t = frame % params.T;
    SequenceForward<T> forward(S, params.D);
    const Sequence<T> sequence = frame_sequence<T>(params, b, t, n);
    A* lse = params.lse ? static_cast<A*>(params.lse) + lse_offset(params, b, t, n) : nullptr;
    forward.load(sequence);
    forward.attend(sequence, begin, end, frame_pixels<T>(params.out, params.W, b, t, n), lse, params.N);
  });
}

template <class T>
void attention_backward(const SpatialAttentionBwdParams& params) {
  using A = acc_t<T>;
  const int64_t L = params.H * params.W, S = params.KH * params.KW;
  const bool relative = params.bias.relative;
  const int64_t table_width = relative ? 2 * params.W - 1 : S;
  const int64_t entries = (relative ? 2 * params.H - 1 : L) * table_width;
  // A unit is `frames` frames that share their k and v.
  const int64_t frames = params.shared_context ? params.T : 1;
  const int64_t units = params.shared_context ? params.B : params.B * params.T;
  BiasGradient<A> dbias(
      params.dbias, params.N, entries, bias_layout(params, table_width, 1), S, units, /*unwanted_units=*/1);
  parallel_for(0, dbias.tasks(), [&](int64_t task) {
    const int64_t n = dbias.head(task);
    const BiasSums<A> sums = dbias.start(task);
    SequenceBackward<T> backward(frames * L, S, params.D);
    for (int64_t unit = dbias.first_unit(task); unit < dbias.last_unit(task); ++unit) {
      const int64_t b = params.shared_context ? unit : unit / params.T;
      const int64_t first = params.shared_context ? 0 : unit % params.T;
      const Sequence<T> source = frame_sequence<T>(params, b, first, n);
      backward.begin(source);
      for (int64_t t = first; t < first + frames; ++t) {
        const A* lse = static_cast<const A*>(params.lse) + lse_offset(params, b, t, n);
        backward.add_queries(
            frame_sequence<T>(params, b, t, n), L, frame_pixels<const T>(params.grad_out, params.W, b, t, n), lse,
            params.N, frame_pixels<T>(params.dq, params.W, b, t, n), sums);
      }
      backward.finish(
          source, frame_pixels<T>(params.dk, params.KW, b, first, n), frame_pixels<T>(params.dv, params.KW, b, first, n));
    }
  });
  dbias.finish();
}

}  // namespace

void cpu_spatial_attention(const SpatialAttentionFwdParams& params) {
  dispatch(params.dtype, [&](auto tag) { attention_forward<typename decltype(tag)::type>(params); });
}

void cpu_spatial_attention_backward(const SpatialAttentionBwdParams& params) {
  dispatch(params.dtype, [&](auto tag) { attention_backward<typename decltype(tag)::type>(params); });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
