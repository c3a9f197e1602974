// temporal_attention on the CPU, forward and backward: attention over frames at each pixel and head.   contract: DESIGN.md 4
//
//   math     forward.h and backward.h, with one sequence a (b, y, x, n): T queries, S keys
//   task     forward: some neighbouring pixels, all heads; backward: the same, or a chunk of bias_gradient.h
//   group    neighbouring heads of a pixel: a frame's rows of all of them are copied to scratch at once, and its results back, as
//            frames lie a multiple of the cache's own period apart and one head's rows alone would evict each other
//   scratch  a group's rows, at most kGroupBytes where one head's are not more
#include "attention/cpu/bias_gradient.h"
#include "attention/cpu/temporal.h"
#include "attention/cpu_kernels.h"
#include "common/dispatch.h"

namespace vdiff {
inline namespace VDIFF_ISA {
namespace {

constexpr int64_t kTaskSequences = 64;
constexpr int64_t kGroupBytes = 24 << 10;     // half of the first level: what is written there is to stay there
constexpr int64_t kStreamedBytes = 16 << 20;  // read and written by a call: of more, no result is in a cache when it is read

struct Pixel {
  int64_t b, y, x;

  Pixel(const TemporalAttentionParams& p, int64_t index)  // index in B * H * W
      : b(index / p.W / p.H), y(index / p.W % p.H), x(index % p.W) {}

  // Where head n's frame 0 lies.
  template <class T, class Pointer>
  T* of(const PixelRows<Pointer>& rows, int64_t n) const {
    return static_cast<T*>(rows.data) + b * rows.stride_b + y * rows.stride_h + x * rows.stride_w + n * rows.stride_n;
  }

  // The same in a contiguous (B, T, H, W, N).
  int64_t lse(const TemporalAttentionParams& p, int64_t n) const { return ((b * p.T * p.H + y) * p.W + x) * p.N + n; }
};

// How many heads of a pixel are taken at once, with rows of so many frames in all.
template <class A>
int64_t group_heads(const TemporalAttentionParams& p, int64_t frames) {
  return min_of(p.N, max_of<int64_t>(1, kGroupBytes / (frames * padded<A>(p.D) * int64_t(sizeof(A)))));
}

// Whether a result's rows go past the caches: the call is large, and they are whole lines.
template <class T>
bool is_streamed(const TemporalAttentionParams& p, const OutputRows& rows) {
  constexpr int64_t kLine = 64 / sizeof(T);
  const int64_t strides[] = {rows.stride_b, rows.stride_t, rows.stride_h, rows.stride_w, rows.stride_n, p.D};
  bool whole = int64_t(rows.data) % 64 == 0;
  for (const int64_t stride : strides) whole = whole && stride % kLine == 0;
  return whole && 2 * (p.T + p.S) * p.B * p.H * p.W * p.N * p.D * int64_t(sizeof(T)) > kStreamedBytes;
}

// The rows of a group of heads in scratch: (heads, frames, padded D).
template <class A>
class GroupRows {
 public:
  GroupRows(int64_t heads, int64_t frames, int64_t D)
      : frames_(frames), D_(D), stride_(padded<A>(D)), data_(heads * frames * stride_) {}

  Rows<A> head(int64_t g) { return {data_ + g * frames_ * stride_, stride_}; }
  bool finite() const { return finite_; }

  template <class T>
  void load(const InputRows& rows, const T* from, int64_t heads) {
    Finite<A> finite;
    for (int64_t t = 0; t < frames_; ++t, from += rows.stride_t) {
      for (int64_t g = 0; g < heads; ++g) {
        // The next pixel's comes into the cache meanwhile: so many rows are more streams than the processor follows by itself.
        load_row(from + g * rows.stride_n, D_, head(g)[t], finite, /*ahead=*/rows.stride_w);
      }
    }
    finite_ = finite.all();
  }

  template <class T>
  void store(const OutputRows& rows, T* to, int64_t heads, bool streamed) {
    for (int64_t t = 0; t < frames_; ++t, to += rows.stride_t)
      for (int64_t g = 0; g < heads; ++g) {
        T* row = to + g * rows.stride_n;
        streamed ? stream_row(head(g)[t], D_, row) : store_row(head(g)[t], D_, row);
      }
  }

 private:
  int64_t frames_, D_, stride_;
  Scratch<A> data_;
  bool finite_ = true;
};

template <class A>
void turn_rows(const Rotation<A>& rotation, int64_t T, A direction, const Rows<A>& rows) {
  for (int64_t t = 0; rotation.any() && t < T; ++t) rotation.turn(t, direction, rows[t]);
}

template <class T>
void attention_forward(const TemporalAttentionFwdParams& p) {
  using A = acc_t<T>;
  if (p.B * p.T * p.H * p.W * p.N == 0) return;
  const Rotation<A> rotation = temporal_rotation<A>(p);
  const int64_t pixels = p.B * p.H * p.W, task_pixels = ceil_div(kTaskSequences, p.N);
  const int64_t group = group_heads<A>(p, p.T + 2 * p.S);
  const bool streamed = is_streamed<T>(p, p.out);
  parallel_for(0, ceil_div(pixels, task_pixels), 2 * task_pixels * p.N * p.T * p.S * p.D, [&](int64_t task) {
    TemporalForward<A> forward(p);
    GroupRows<A> q(group, p.T, p.D), k(group, p.S, p.D), v(group, p.S, p.D);
    for (int64_t index = task * task_pixels; index < min_of(pixels, (task + 1) * task_pixels); ++index) {
      const Pixel at(p, index);
      for (int64_t n = 0; n < p.N; n += group) {
        const int64_t heads = min_of(group, p.N - n);
        q.load(p.q, at.of<const T>(p.q, n), heads);
        k.load(p.k, at.of<const T>(p.k, n), heads);
        v.load(p.v, at.of<const T>(p.v, n), heads);
        for (int64_t g = 0; g < heads; ++g) {
          turn_rows(rotation, p.T, A(1), q.head(g));
          turn_rows(rotation, p.S, A(1), k.head(g));
          A* lse = p.lse ? static_cast<A*>(p.lse) + at.lse(p, n + g) : nullptr;
          forward.attend(
              at.b, n + g, q.head(g), k.head(g), v.head(g), v.finite(), /*out=*/q.head(g), lse, p.H * p.W * p.N);
        }
        q.store(p.out, at.of<T>(p.out, n), heads, streamed);
      }
    }
  });
}

template <class T>
void attention_backward(const TemporalAttentionBwdParams& p) {
  using A = acc_t<T>;
  const Rotation<A> rotation = temporal_rotation<A>(p);
  const int64_t entries = p.bias.relative ? p.T + p.S - 1 : p.T * p.S;
  const TableIndex row(p.T, p.T, 0, p.bias.relative ? -1 : p.S), column(p.S, p.S, 0, 1);
  BiasGradient<A> dbias(
      p.dbias, p.N, entries, p.bias.relative ? p.T - 1 : 0, row.get(), column.get(), p.B * p.H * p.W,
      ceil_div(kTaskSequences, max_of<int64_t>(p.N, 1)));
  if (p.B * p.T * p.H * p.W * p.N == 0) return dbias.finish();
  const int64_t group = group_heads<A>(p, 3 * p.T + 4 * p.S);
  const bool streamed = is_streamed<T>(p, p.dq) && is_streamed<T>(p, p.dk) && is_streamed<T>(p, p.dv);
  parallel_for(0, dbias.chunks(), 5 * dbias.last_unit(0) * p.N * p.T * p.S * p.D, [&](int64_t chunk) {
    TemporalBackward<A> backward(p);
    GroupRows<A> q(group, p.T, p.D), k(group, p.S, p.D), v(group, p.S, p.D), g(group, p.T, p.D);
    GroupRows<A> dq(group, p.T, p.D), dk(group, p.S, p.D), dv(group, p.S, p.D);
    for (int64_t index = dbias.first_unit(chunk); index < dbias.last_unit(chunk); ++index) {
      const Pixel at(p, index);
      for (int64_t n = 0; n < p.N; n += group) {
        const int64_t heads = min_of(group, p.N - n);
        q.load(p.q, at.of<const T>(p.q, n), heads);
        k.load(p.k, at.of<const T>(p.k, n), heads);
        v.load(p.v, at.of<const T>(p.v, n), heads);
        g.load(p.grad_out, at.of<const T>(p.grad_out, n), heads);
        for (int64_t i = 0; i < heads; ++i) {
          turn_rows(rotation, p.T, A(1), q.head(i));
          turn_rows(rotation, p.S, A(1), k.head(i));
          backward.differentiate(
              at.b, n + i, q.head(i), k.head(i), v.head(i), g.head(i), {q.finite(), k.finite(), v.finite(), g.finite()},
              dbias.sums(chunk, n + i), dq.head(i), dk.head(i), dv.head(i));
          turn_rows(rotation, p.T, A(-1), dq.head(i));
          turn_rows(rotation, p.S, A(-1), dk.head(i));
        }
        dq.store(p.dq, at.of<T>(p.dq, n), heads, streamed);
        dk.store(p.dk, at.of<T>(p.dk, n), heads, streamed);
        dv.store(p.dv, at.of<T>(p.dv, n), heads, streamed);
      }
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
