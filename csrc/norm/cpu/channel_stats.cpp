// channel_stats: mean and biased variance of every channel of every frame.     contract: params.h, ChannelStatsParams
//
//   task     a band of kBandPixels pixels of one frame; then, in a second pass, one frame
//   scratch  per band (mean, sum of squared deviations) x C in double: 1/128 of x in float32
//   bytes    reads x once
//
// Deterministic: bands, runs and parts follow from H*W alone and merge in order.
#include "common/cpu/parallel.h"
#include "common/cpu/scratch.h"
#include "common/cpu/statistics.h"
#include "common/dispatch.h"
#include "norm/cpu_kernels.h"

namespace vdiff {
inline namespace VDIFF_ISA {

namespace {

constexpr int64_t kBandPixels = 512;

template <class T>
void band_stats(const ChannelStatsParams& p, int64_t i_frame, int64_t i_band, double* mean, double* m2) {
  const T* frame = static_cast<const T*>(p.x) + i_frame / p.T * p.stride_x.b + i_frame % p.T * p.stride_x.t;
  const int64_t begin = i_band * kBandPixels;
  const int64_t end = min_of(begin + kBandPixels, p.H * p.W);
  Scratch<double> run(2 * p.C);
  const auto pixel = [&](int64_t i) { return frame + (begin + i) / p.W * p.stride_x.h + (begin + i) % p.W * p.stride_x.w; };
  pixel_stats<T>(end - begin, p.C, pixel, mean, m2, run.get());
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
      merge_stats(mean, m2, before, other, other + C, min_of(kBandPixels, pixels - before), C);
    }
    store_stats(mean, m2, pixels, C, static_cast<acc_t<T>*>(p.stats) + i_frame * C * 2);
  });
}

}  // namespace

void cpu_channel_stats(const ChannelStatsParams& p) {
  dispatch(p.dtype, [&](auto tag) { channel_stats<typename decltype(tag)::type>(p); });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
