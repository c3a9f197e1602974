// Mean and squared deviations of every channel over some pixels, and over those of others. No torch, no STL.
//
//   acc      acc_t over kPartPixels pixels, double over more
//
//   near   = mean of 4 of a run's pixels;  d = x - near                                              (1)
//   mean   = near + sum(d) / n;  m2 = sum(d^2) - sum(d)^2 / n       near is about the mean, so sum(d)^2 / n is small    (2)
//   merge: delta = mean_run - mean;  mean += delta n_run / n;  m2 += m2_run + delta^2 n_before n_run / n   (3)
#pragma once

#include <math.h>

#include "common/cpu/simd.h"

namespace vdiff {
inline namespace VDIFF_ISA {

constexpr int64_t kPartPixels = 16;
constexpr int64_t kRunPixels = 64;

// (3) mean, m2 (C,) over count pixels so far, take in count_other more.
inline void merge_stats(
    double* mean, double* m2, int64_t count, const double* mean_other, const double* m2_other, int64_t count_other, int64_t C) {
  const double total = double(count + count_other);
  for (int64_t c = 0; c < C; ++c) {
    const double delta = mean_other[c] - mean[c];
    mean[c] += delta * (double(count_other) / total);
    m2[c] += m2_other[c] + delta * delta * (double(count) * double(count_other) / total);
  }
}

// mean, m2 (C,) of 1 to kRunPixels pixels, pixel(i) its channels.
template <class T, class Row>
void run_stats(int64_t count, int64_t C, const Row& pixel, double* mean, double* m2) {
  using acc = acc_t<T>;
  const T* pixels[kRunPixels];
  for (int64_t i = 0; i < count; ++i) pixels[i] = pixel(i);
  for_vectors<acc>(C, [&](int64_t c, int64_t part) {
    Vec<acc> shift = {};
    for (int64_t i = 0; i < 4; ++i) shift += acc(0.25) * load_part(pixels[i * count / 4] + c, part);
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

// The same of any number of pixels, run after run. scratch: (2, C).
template <class T, class Row>
void pixel_stats(int64_t count, int64_t C, const Row& pixel, double* mean, double* m2, double* scratch) {
  for (int64_t first = 0; first < count; first += kRunPixels) {
    const int64_t run = min_of(kRunPixels, count - first);
    const auto of_run = [&](int64_t i) { return pixel(first + i); };
    run_stats<T>(run, C, of_run, first ? scratch : mean, first ? scratch + C : m2);
    if (first) merge_stats(mean, m2, first, scratch, scratch + C, run, C);
  }
}

// A frame's stats (C, 2), mean and biased variance of `pixels` pixels.
template <class A>
void store_stats(const double* mean, const double* m2, int64_t pixels, int64_t C, A* stats) {
  for (int64_t c = 0; c < C; ++c) {
    stats[2 * c] = A(pixels ? mean[c] : NAN);
    stats[2 * c + 1] = A(pixels ? m2[c] / double(pixels) : NAN);
  }
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
