// channel_stats: mean and biased variance of every channel of every frame.     contract: params.h, ChannelStatsParams
//
//   task     a band of kBandPixels pixels of one frame; then, in a second pass, one frame
//   scratch  per band (mean, sum of squared deviations) x C in double: 1/128 of x in float32
//   acc      acc_t over kPartPixels pixels, double over more
//   bytes    reads x once
//
//   first  = x of a run's first pixel;  d = x - first                                                (1)
//   mean   = first + sum(d) / n;  m2 = sum(d^2) - sum(d)^2 / n      since first is one of them, sum(d^2) <= n m2    (2)
//   merge: delta = mean_run - mean;  mean += delta n_run / n;  m2 += m2_run + delta^2 n_before n_run / n   (3)
//
// Deterministic: bands, runs and parts follow from H*W alone and merge in order.
#include <math.h>

#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "common/simd.h"
#include "norm/cpu_kernels.h"

namespace vdiff {
inline namespace VDIFF_ISA {

namespace {

constexpr int64_t kPartPixels = 16;
constexpr int64_t kRunPixels = 64;
constexpr int64_t kBandPixels = 512;

// mean, m2 (C,) over count pixels so far, take in count_other more.
void merge(double* mean, double* m2, int64_t count, const double* mean_other, const double* m2_other, int64_t count_other,
           int64_t C) {
  const double total = double(count + count_other);
  for (int64_t c = 0; c < C; ++c) {
    const double delta = mean_other[c] - mean[c];
    mean[c] += delta * (double(count_other) / total);
    m2[c] += m2_other[c] + delta * delta * (double(count) * double(count_other) / total);
  }
}

// mean, m2 (C,) of pixels [first, last) of a frame.
template <class T>
void run_stats(const ChannelStatsParams& p, const T* frame, int64_t first, int64_t last, double* mean, double* m2) {
  using acc = acc_t<T>;
  const int64_t count = last - first;
  const T* pixels[kRunPixels];
  for (int64_t i = 0; i < count; ++i) {
    pixels[i] = frame + (first + i) / p.W * p.stride_x.h + (first + i) % p.W * p.stride_x.w;
  }
  for_vectors<acc>(p.C, [&](int64_t c, int64_t part) {
    const Vec<acc> shift = load_part(pixels[0] + c, part);
    double sums[kLanes<acc>] = {}, squares[kLanes<acc>] = {};
    for (int64_t i_part = 0; i_part < count; i_part += kPartPixels) {
      Vec<acc> sum = {}, square = {};
      for (int64_t i = i_part; i < min_of(i_part + kPartPixels, count); ++i) {
        const Vec<acc> d = load_part(pixels[i] + c, part) - shift;  // (1)
        sum += d;
        square += d * d;
      }
      for (int64_t lane = 0; lane < kLanes<acc>; ++lane) {
        sums[lane] += double(sum[lane]);
        squares[lane] += double(square[lane]);
      }
    }
    for (int64_t lane = 0; lane < part; ++lane) {  // (2)
      const double deviations = squares[lane] - sums[lane] * (sums[lane] / double(count));
      mean[c + lane] = double(shift[lane]) + sums[lane] / double(count);
      m2[c + lane] = deviations < 0 ? 0 : deviations;  // NaN stays NaN
    }
  });
}

template <class T>
void band_stats(const ChannelStatsParams& p, int64_t i_frame, int64_t i_band, double* mean, double* m2) {
  const T* frame = static_cast<const T*>(p.x) + i_frame / p.T * p.stride_x.b + i_frame % p.T * p.stride_x.t;
  const int64_t begin = i_band * kBandPixels;
  const int64_t end = min_of(begin + kBandPixels, p.H * p.W);
  Scratch<double> run(2 * p.C);
  run_stats(p, frame, begin, min_of(begin + kRunPixels, end), mean, m2);
  for (int64_t first = begin + kRunPixels; first < end; first += kRunPixels) {
    const int64_t last = min_of(first + kRunPixels, end);
    run_stats(p, frame, first, last, run.get(), run + p.C);
    merge(mean, m2, first - begin, run, run + p.C, last - first, p.C);  // (3)
  }
}

template <class T>
void channel_stats(const ChannelStatsParams& p) {
  const int64_t frames = p.B * p.T, pixels = p.H * p.W, C = p.C;
  const int64_t bands = ceil_div(pixels, kBandPixels);
  Scratch<double> partial(frames * bands * 2 * C);  // (frames, bands, 2, C)
  parallel_for(0, frames * bands, 2 * min_of(kBandPixels, pixels) * C, [&](int64_t task) {
    double* mean = partial + task * 2 * C;
    band_stats<T>(p, task / bands, task % bands, mean, mean + C);
  });
  parallel_for(0, frames, 8 * bands * C, [&](int64_t i_frame) {
    double* mean = partial + i_frame * bands * 2 * C;
    double* m2 = mean + C;
    for (int64_t i = 1; i < bands; ++i) {
      const double* other = mean + i * 2 * C;
      const int64_t before = i * kBandPixels;
      merge(mean, m2, before, other, other + C, min_of(kBandPixels, pixels - before), C);  // (3)
    }
    acc_t<T>* stats = static_cast<acc_t<T>*>(p.stats) + i_frame * C * 2;
    for (int64_t c = 0; c < C; ++c) {
      stats[2 * c] = acc_t<T>(pixels ? mean[c] : NAN);
      stats[2 * c + 1] = acc_t<T>(pixels ? m2[c] / double(pixels) : NAN);
    }
  });
}

}  // namespace

void cpu_channel_stats(const ChannelStatsParams& p) {
  dispatch(p.dtype, [&](auto tag) { channel_stats<typename decltype(tag)::type>(p); });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
