// temporal_attention on the CPU, forward and backward: attention over frames at each pixel and head.   contract: DESIGN.md 4
//
//   math     cpu_sequence.h, with one sequence a (b, y, x, n): T queries, S keys
//   task     forward: kTaskSequences neighbouring sequences (the heads of a pixel lie together);
//            backward: some pixels of one head, kTaskSequences of them or a chunk of cpu_bias_gradient.h
//   scratch  a task's one sequence; (T, R/2) cosines and sines a call
//   acc      float, double for double; dbias in double
//   order    each sequence is computed by itself, and chunks are set by shapes: bit-equal for every number of threads
#include "attention/cpu_bias_gradient.h"
#include "attention/cpu_kernels.h"
#include "common/dispatch.h"

namespace vdiff {
inline namespace VDIFF_ISA {
namespace {

constexpr int64_t kTaskSequences = 16;

// (T, R/2, 2) cos, sin of rotary.
template <class A>
void fill_rotation(const TemporalAttentionParams& params, A* rotation) {
  if (!params.rotary) return;
  const A* angles = static_cast<const A*>(params.rotary);
  for (int64_t t = 0; t < params.T; ++t)
    for (int64_t m = 0; m < params.R / 2; ++m, rotation += 2) {
      const A angle = angles[t * params.stride_rotary_t + m * params.stride_rotary_r];
      rotation[0] = cos_of(angle);
      rotation[1] = sin_of(angle);
    }
}

BiasLayout bias_layout(bool relative, int64_t T, int64_t S, int64_t stride_0, int64_t stride_1) {
  if (!relative) return dense_bias_layout(S, stride_0, stride_1);
  return {(T - 1) * stride_1, {1, -stride_1, 0}, {S, 0, stride_1}};  // entry j - i + T - 1
}

struct Pixel {
  int64_t b, y, x;

  Pixel(const TemporalAttentionParams& params, int64_t index)  // index in B * H * W
      : b(index / params.W / params.H), y(index / params.W % params.H), x(index % params.W) {}
};

template <class T, class Pointer>
RowView<T> pixel_frames(const PixelRows<Pointer>& rows, const Pixel& at, int64_t n) {
  T* data = static_cast<T*>(rows.data);
  return {
      data + at.b * rows.stride_b + at.y * rows.stride_h + at.x * rows.stride_w + n * rows.stride_n,
      {1, rows.stride_t, 0}};
}

template <class T>
Sequence<T> pixel_sequence(const TemporalAttentionParams& params, const acc_t<T>* rotation, const Pixel& at, int64_t n) {
  Sequence<T> sequence{};
  sequence.q = pixel_frames<const T>(params.q, at, n);
  sequence.k = pixel_frames<const T>(params.k, at, n);
  sequence.v = pixel_frames<const T>(params.v, at, n);
  sequence.S = params.S;
  sequence.D = params.D;
  sequence.scale = acc_t<T>(params.scale);
  const AttentionBias& bias = params.bias;
  if (bias.data) {
    sequence.bias = head_bias(bias, n);
    sequence.bias_dtype = bias.dtype;
    sequence.bias_layout = bias_layout(bias.relative, params.T, params.S, bias.stride_0, bias.stride_1);
  }
  sequence.causal = params.causal;
  if (params.focus_present) sequence.isolated = params.focus_present + at.b * params.stride_focus_b;
  sequence.stride_isolated = params.stride_focus_t;
  if (params.rotary) sequence.rotation = rotation;
  sequence.rotary_pairs = params.R / 2;
  return sequence;
}

// Where the sequence's row 0 lies in a contiguous (B, T, H, W, N); row i is i * H * W * N further.
int64_t lse_offset(const TemporalAttentionParams& params, const Pixel& at, int64_t n) {
  return ((at.b * params.T * params.H + at.y) * params.W + at.x) * params.N + n;
}

template <class T>
void attention_forward(const TemporalAttentionFwdParams& params) {
  using A = acc_t<T>;
  const int64_t sequences = params.B * params.H * params.W * params.N;
  Scratch<A> rotation(params.T * params.R);
  fill_rotation<A>(params, rotation);
  parallel_for(0, ceil_div(sequences, kTaskSequences), [&](int64_t task) {
    SequenceForward<T> forward(params.S, params.D);
    const int64_t end = min_of(sequences, (task + 1) * kTaskSequences);
    for (int64_t index = task * kTaskSequences; index < end; ++index) {
      const Pixel at(params, index / params.N);
      const int64_t n = index % params.N;
      const Sequence<T> sequence = pixel_sequence<T>(params, rotation, at, n);
      A* lse = params.lse ? static_cast<A*>(params.lse) + lse_offset(params, at, n) : nullptr;
      forward.load(sequence);
      forward.attend(
          sequence, 0, params.T, pixel_frames<T>(params.out, at, n), lse, params.H * params.W * params.N);
    }
  });
}

template <class T>
void attention_backward(const TemporalAttentionBwdParams& params) {
  using A = acc_t<T>;
  Scratch<A> rotation(params.T * params.R);
  fill_rotation<A>(params, rotation);
  const bool relative = params.bias.relative;
  const int64_t entries = relative ? params.T + params.S - 1 : params.T * params.S;
  BiasGradient<A> dbias(
      params.dbias, params.N, entries, bias_layout(relative, params.T, params.S, params.S, 1), params.S,
      params.B * params.H * params.W, kTaskSequences);
  parallel_for(0, dbias.tasks(), [&](int64_t task) {
    const int64_t n = dbias.head(task);
    const BiasSums<A> sums = dbias.start(task);
    SequenceBackward<T> backward(params.T, params.S, params.D);
    for (int64_t unit = dbias.first_unit(task); unit < dbias.last_unit(task); ++unit) {
      const Pixel at(params, unit);
      const Sequence<T> sequence = pixel_sequence<T>(params, rotation, at, n);
      const A* lse = static_cast<const A*>(params.lse) + lse_offset(params, at, n);
      backward.begin(sequence);
      backward.add_queries(
          sequence, params.T, pixel_frames<const T>(params.grad_out, at, n), lse, params.H * params.W * params.N,
          pixel_frames<T>(params.dq, at, n), sums);
      backward.finish(sequence, pixel_frames<T>(params.dk, at, n), pixel_frames<T>(params.dv, at, n));
    }
  });
  dbias.finish();
}

}  // namespace

void cpu_temporal_attention(const TemporalAttentionFwdParams& params) {
  dispatch(params.dtype, [&](auto tag) { attention_forward<typename decltype(tag)::type>(params); });
}

void cpu_temporal_attention_backward(const TemporalAttentionBwdParams& params) {
  dispatch(params.dtype, [&](auto tag) { attention_backward<typename decltype(tag)::type>(params); });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
