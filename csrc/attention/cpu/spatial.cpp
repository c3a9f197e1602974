// spatial_attention on the CPU, forward and backward: attention over a frame's pixels, or from them to a context.
//                                                                                            contract: DESIGN.md 4
//
//   math     forward.h and backward.h, with one sequence a (b, t, n): L = H * W queries, S keys
//   task     forward: kTaskQueries queries of a sequence, so that one image occupies every thread; each task copies k and v
//            anew, S * D beside its kTaskQueries * S * D * 4 operations;
//            backward: one head of a frame, or of all frames of a sample where these share their k and v; with dbias, of a
//            chunk of such units, of bias_gradient.h
//   masked   of k and v only the rows of the keys that a sample's queries see are copied, and all else is done of those
//   scratch  a task's rows: q, k, v (and g, dq, dk, dv) of one sequence
//   order    each query, each unit's gradients are computed by themselves, and chunks are set by shapes: bit-equal for every
//            number of threads
#include "attention/cpu/spatial.h"

#include "attention/cpu/bias_gradient.h"
#include "attention/cpu_kernels.h"
#include "common/dispatch.h"

namespace vdiff {
inline namespace VDIFF_ISA {
namespace {

constexpr int64_t kTaskQueries = 4 * kQueries;

// The pixels of one frame and head, in lines of `width`.
template <class T>
struct FramePixels {
  T* data;
  int64_t width, stride_h, stride_w;

  T* operator[](int64_t i) const { return data + i / width * stride_h + i % width * stride_w; }
};

template <class T, class Pointer>
FramePixels<T> frame_pixels(const PixelRows<Pointer>& rows, int64_t width, int64_t b, int64_t t, int64_t n) {
  T* data = static_cast<T*>(rows.data);
  return {data + b * rows.stride_b + t * rows.stride_t + n * rows.stride_n, width, rows.stride_h, rows.stride_w};
}

template <class T>
struct SeenPixels {
  FramePixels<T> pixels;
  SeenKeys seen;

  T* operator[](int64_t i) const { return pixels[seen.keys[i]]; }
};

// Rows in scratch: (count, padded D).
template <class A>
class FrameRows {
 public:
  FrameRows(int64_t count, int64_t D) : D_(D), stride_(padded<A>(D)), data_(count * stride_) {}

  Rows<A> rows() { return {data_, stride_}; }
  bool finite() const { return finite_; }

  // Pixels [begin, end), from row 0 on.
  template <class Pixels>
  void load(const Pixels& pixels, int64_t begin, int64_t end) {
    Finite<A> finite;
    for (int64_t i = begin; i < end; ++i) load_row(pixels[i], D_, rows()[i - begin], finite);
    finite_ = finite.all();
  }

  template <class T>
  void store(const FramePixels<T>& pixels, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) store_row(rows()[i - begin], D_, pixels[i]);
  }

  // Zeros to those of `count` pixels that were not seen.
  template <class T>
  void store_seen(const SeenPixels<T>& to, int64_t count) {
    for (int64_t j = 0, i = 0; j < count; ++j) {
      if (i < to.seen.count && to.seen.keys[i] == j) {
        store_row(rows()[i++], D_, to.pixels[j]);
      } else {
        __builtin_memset(to.pixels[j], 0, D_ * sizeof(T));
      }
    }
  }

 private:
  int64_t D_, stride_;
  Scratch<A> data_;
  bool finite_ = true;
};

template <class T>
void attention_forward(const SpatialAttentionFwdParams& p) {
  using A = acc_t<T>;
  const int64_t L = p.H * p.W, S = p.KH * p.KW, blocks = ceil_div(L, kTaskQueries);
  const int64_t tasks = p.B * p.T * p.N * blocks;
  if (tasks == 0) return;
  const AllSeenKeys all_keys(p);
  const SpatialBias<A> bias(p);
  parallel_for(0, tasks, 2 * min_of(kTaskQueries, L) * S * p.D, [&](int64_t task) {
    const int64_t begin = task % blocks * kTaskQueries, end = min_of(L, begin + kTaskQueries);
    const int64_t n = task / blocks % p.N, frame = task / blocks / p.N;
    const int64_t b = frame / p.T, t = frame % p.T;
    const SeenKeys keys = all_keys.of(b);
    SpatialForward<A> forward(p, bias, keys);
    FrameRows<A> q(end - begin, p.D), k(keys.count, p.D), v(keys.count, p.D);
    q.load(frame_pixels<const T>(p.q, p.W, b, t, n), begin, end);
    k.load(SeenPixels<const T>{frame_pixels<const T>(p.k, p.KW, b, t, n), keys}, 0, keys.count);
    v.load(SeenPixels<const T>{frame_pixels<const T>(p.v, p.KW, b, t, n), keys}, 0, keys.count);
    A* lse = p.lse ? static_cast<A*>(p.lse) + (frame * L + begin) * p.N + n : nullptr;
    forward.attend(n, begin, end, q.rows(), k.rows(), v.rows(), v.finite(), /*out=*/q.rows(), lse, p.N);
    q.store(frame_pixels<T>(p.out, p.W, b, t, n), begin, end);
  });
}

template <class T>
void attention_backward(const SpatialAttentionBwdParams& p) {
  using A = acc_t<T>;
  const int64_t L = p.H * p.W, S = p.KH * p.KW;
  const SpatialTable table(p);
  // A unit is `frames` frames that share their k and v.
  const int64_t frames = p.shared_context ? p.T : 1, units = p.shared_context ? p.B : p.B * p.T;
  BiasGradient<A> dbias(
      p.dbias, p.N, table.entries, table.origin, table.row.get(), table.column.get(), units, /*unwanted_units=*/1);
  if (units * p.N == 0 || L == 0) return dbias.finish();
  const AllSeenKeys all_keys(p);
  const SpatialBias<A> bias(p);
  parallel_for(0, dbias.chunks() * p.N, 5 * L * S * p.D, [&](int64_t task) {
    const int64_t n = task % p.N, chunk = task / p.N;
    SpatialBackward<A> backward(p, bias);
    FrameRows<A> q(L, p.D), k(S, p.D), v(S, p.D), g(L, p.D), dq(L, p.D), dk(S, p.D), dv(S, p.D);
    for (int64_t unit = dbias.first_unit(chunk); unit < dbias.last_unit(chunk); ++unit) {
      const int64_t b = p.shared_context ? unit : unit / p.T, first = p.shared_context ? 0 : unit % p.T;
      const SeenKeys keys = all_keys.of(b);
      BiasSums<A> sums = dbias.sums(chunk, n);
      sums.column = table.columns(p, keys);
      k.load(SeenPixels<const T>{frame_pixels<const T>(p.k, p.KW, b, first, n), keys}, 0, keys.count);
      v.load(SeenPixels<const T>{frame_pixels<const T>(p.v, p.KW, b, first, n), keys}, 0, keys.count);
      for (int64_t t = first; t < first + frames; ++t) {
        q.load(frame_pixels<const T>(p.q, p.W, b, t, n), 0, L);
        g.load(frame_pixels<const T>(p.grad_out, p.W, b, t, n), 0, L);
        backward.differentiate(
            n, keys, q.rows(), k.rows(), v.rows(), g.rows(), {q.finite(), k.finite(), v.finite(), g.finite()}, sums, dq.rows(),
            dk.rows(), dv.rows(), /*out=*/{nullptr, 0}, /*adds=*/t > first);
        dq.store(frame_pixels<T>(p.dq, p.W, b, t, n), 0, L);
      }
      dk.store_seen(SeenPixels<T>{frame_pixels<T>(p.dk, p.KW, b, first, n), keys}, S);
      dv.store_seen(SeenPixels<T>{frame_pixels<T>(p.dv, p.KW, b, first, n), keys}, S);
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
