// One vector register of accumulators, by GCC's vector extension: Vec<float> and Vec<double>, with + - * / and comparisons as
// the compiler has them (a * b + c is one fused multiply-add where the processor has it). No torch, no STL.
//
//   lanes     kLanes<acc>: 4 floats at baseline, 8 with AVX2, 16 with AVX-512
//   memory    any alignment; Half and BFloat16 widen to float and round to nearest even
//   math      exp, log, sigmoid and erf of float within 2 ulp, 0 and infinity where they leave float's normal range, NaN stays
//             NaN; double by the C library
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <math.h>

#include "common/scalar.h"

namespace vdiff {
inline namespace VDIFF_ISA {

#if defined(__AVX512F__)
constexpr int64_t kVectorBytes = 64, kVectorRegisters = 32;
#elif defined(__AVX2__)
constexpr int64_t kVectorBytes = 32, kVectorRegisters = 16;
#elif defined(__aarch64__)
constexpr int64_t kVectorBytes = 16, kVectorRegisters = 32;
#else
constexpr int64_t kVectorBytes = 16, kVectorRegisters = 16;
#endif

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class acc>
using Vec = typename VectorOf<acc>::type;
template <class acc>
constexpr int64_t kLanes = kVectorBytes / int64_t(sizeof(acc));

template <class acc>
[[gnu::always_inline]] inline Vec<acc> splat(acc value) {
  return value - Vec<acc>{};
}

// The numbers of a vector's lanes as template arguments, to write constant vectors with.
template <int64_t... lane>
struct LaneList {};
template <int64_t count, int64_t... lane>
struct LanesBelow : LanesBelow<count - 1, count - 1, lane...> {};
template <int64_t... lane>
struct LanesBelow<0, lane...> {
  using type = LaneList<lane...>;
};
template <class V>
using LanesOf = typename LanesBelow<int64_t(sizeof(V) / sizeof(V{}[0]))>::type;
template <class V>
using MaskOf = decltype(V{} < V{});  // as many integers, -1 or 0

template <class V, int64_t... lane>
[[gnu::always_inline]] inline MaskOf<V> first_lanes(int64_t count, LaneList<lane...>) {
  using Integer = decltype(MaskOf<V>{}[0] + 0);
  return MaskOf<V>{Integer(lane)...} < Integer(count);
}

// -1 in the first count lanes.
template <class V>
[[gnu::always_inline]] inline MaskOf<V> first_lanes(int64_t count) {
  return first_lanes<V>(count, LanesOf<V>{});
}

// ----------------------------------------------------------------------------------------------------------------- memory

[[gnu::always_inline]] inline Vec<float> load_vector(const float* from) {
  Vec<float> value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}

[[gnu::always_inline]] inline Vec<double> load_vector(const double* from) {
  Vec<double> value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}

[[gnu::always_inline]] inline void store_vector(float* to, Vec<float> value) { __builtin_memcpy(to, &value, sizeof(value)); }
[[gnu::always_inline]] inline void store_vector(double* to, Vec<double> value) { __builtin_memcpy(to, &value, sizeof(value)); }

[[gnu::always_inline]] inline Vec<float> load_vector(const Half* from) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__AVX2__)
  return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  Vec<float> value;
  for (int64_t lane = 0; lane < kLanes<float>; ++lane) value[lane] = to_acc(from[lane]);
  return value;
#endif
}

[[gnu::always_inline]] inline void store_vector(Half* to, Vec<float> value) {
#if defined(__AVX512F__)
  const __m256i half = _mm512_maskz_cvtps_ph(0xffff, (__m512)value, _MM_FROUND_TO_NEAREST_INT);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), half);
#elif defined(__AVX2__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int64_t lane = 0; lane < kLanes<float>; ++lane) to[lane] = from_acc<Half>(value[lane]);
#endif
}

typedef uint16_t HalfBits __attribute__((vector_size(kVectorBytes / 2)));

[[gnu::always_inline]] inline Vec<float> load_vector(const BFloat16* from) {
  HalfBits bits;
  __builtin_memcpy(&bits, from, sizeof(bits));
  return (Vec<float>)(__builtin_convertvector(bits, Vec<uint32_t>) << 16);
}

[[gnu::always_inline]] inline void store_vector(BFloat16* to, Vec<float> value) {
  const Vec<uint32_t> bits = (Vec<uint32_t>)value;
  const Vec<uint32_t> rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Vec<uint32_t> quiet = (bits >> 16) | 0x40;
  const HalfBits half = __builtin_convertvector(value == value ? rounded : quiet, HalfBits);
  __builtin_memcpy(to, &half, sizeof(half));
}

// The first count lanes, 0 <= count <= kLanes; the others are 0, and stay as they are in memory.
template <class T>
[[gnu::always_inline]] inline Vec<acc_t<T>> load_part(const T* from, int64_t count) {
  if (count == kLanes<acc_t<T>>) return load_vector(from);
  T lanes[kLanes<acc_t<T>>] = {};
  for (int64_t lane = 0; lane < count; ++lane) lanes[lane] = from[lane];
  return load_vector(lanes);
}

template <class T>
[[gnu::always_inline]] inline void store_part(T* to, Vec<acc_t<T>> value, int64_t count) {
  if (count == kLanes<acc_t<T>>) return store_vector(to, value);
  T lanes[kLanes<acc_t<T>>];
  store_vector(lanes, value);
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = lanes[lane];
}

#if defined(__AVX2__)
[[gnu::always_inline]] inline Vec<float> load_part(const float* from, int64_t count) {
  if (count == kLanes<float>) return load_vector(from);
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), from);
#else
  return (Vec<float>)_mm256_maskload_ps(from, (__m256i)first_lanes<Vec<float>>(count));
#endif
}

[[gnu::always_inline]] inline void store_part(float* to, Vec<float> value, int64_t count) {
  if (count == kLanes<float>) return store_vector(to, value);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(to, __mmask16((1u << count) - 1), (__m512)value);
#else
  _mm256_maskstore_ps(to, (__m256i)first_lanes<Vec<float>>(count), (__m256)value);
#endif
}
#endif

// Past the caches: a line that is written whole is not fetched first. `to` is aligned to kVectorBytes. Types without such a store
// have store_vector.
template <class T>
[[gnu::always_inline]] inline void stream_vector(T* to, Vec<acc_t<T>> value) {
  store_vector(to, value);
}

// Before another thread reads what was streamed; parallel_for sees to it.
[[gnu::always_inline]] inline void streaming_ends() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

#if defined(__x86_64__)
template <>
[[gnu::always_inline]] inline void stream_vector<float>(float* to, Vec<float> value) {
#if defined(__AVX512F__)
  _mm512_stream_ps(to, (__m512)value);
#elif defined(__AVX2__)
  _mm256_stream_ps(to, (__m256)value);
#else
  _mm_stream_ps(to, (__m128)value);
#endif
}
#endif

// value in the first count lanes, 0 in the others.
template <class V>
[[gnu::always_inline]] inline V keep_lanes(V value, int64_t count) {
  return first_lanes<V>(count) ? value : V{};
}

// body(i, part) for every vector of count elements: part of them from i on, a constant for all but the last.
template <class acc, class Body>
[[gnu::always_inline]] inline void for_vectors(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes<acc> <= count; i += kLanes<acc>) body(i, kLanes<acc>);
  if (i < count) body(i, count - i);
}

// ------------------------------------------------------------------------------------------------------------------- math

// The larger of each lane; b where either is NaN.
template <class V>
[[gnu::always_inline]] inline V max_lanes(V a, V b) {
  return a > b ? a : b;
}

// Lane l is lane from[l] of a, or of b, whose lanes are counted after those of a.
template <int64_t... from, class V>
[[gnu::always_inline]] inline V pick_lanes(V a, V b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, int(from)...);
#else
  return __builtin_shuffle(a, b, MaskOf<V>{from...});
#endif
}

// a where the lane's number has no bit in `half`, the lane of b `half` below it where it has; or, high, the other ones of both.
template <int64_t half, bool high, class V, int64_t... lane>
[[gnu::always_inline]] inline V interleave(V a, V b, LaneList<lane...>) {
  constexpr int64_t kCount = sizeof...(lane);
  return pick_lanes<((lane & half) ? kCount + (high ? lane : lane ^ half) : high ? lane ^ half : lane)...>(a, b);
}

template <int64_t half, class V, int64_t... lane>
[[gnu::always_inline]] inline V swap_lanes(V value, LaneList<lane...>) {
  return pick_lanes<(lane ^ half)...>(value, value);
}

// The lanes 2m and 2m + 1 in each other's place.
template <class V>
[[gnu::always_inline]] inline V swap_pairs(V value) {
  return swap_lanes<1>(value, LanesOf<V>{});
}

template <int64_t half, class V, int64_t kCount>
[[gnu::always_inline]] inline void transpose_from(V (&rows)[kCount]) {
  if constexpr (half < kCount) {
#pragma GCC unroll 16
    for (int64_t row = 0; row < kCount; ++row) {
      if (row & half) continue;
      const V a = rows[row], b = rows[row + half];
      rows[row] = interleave<half, false>(a, b, LanesOf<V>{});
      rows[row + half] = interleave<half, true>(a, b, LanesOf<V>{});
    }
    transpose_from<2 * half>(rows);
  }
}

// Lane l of row r becomes lane r of row l.
template <class V, int64_t kCount>
[[gnu::always_inline]] inline void transpose_lanes(V (&rows)[kCount]) {
  transpose_from<1>(rows);
}

// All lanes of one, taken together by halves: an order of its own, the same at every call.
template <int64_t half, class V, class Combine>
[[gnu::always_inline]] inline auto reduce_from(V value, const Combine& combine) {
  if constexpr (half == 0) {
    return value[0];
  } else {
    return reduce_from<half / 2>(combine(value, swap_lanes<half>(value, LanesOf<V>{})), combine);
  }
}

template <class V, class Combine>
[[gnu::always_inline]] inline auto reduce_lanes(V value, const Combine& combine) {
  return reduce_from<int64_t(sizeof(V) / sizeof(value[0])) / 2>(value, combine);
}

template <class V>
[[gnu::always_inline]] inline auto sum_of(V value) {
  return reduce_lanes(value, [](auto a, auto b) { return a + b; });
}

template <class V>
[[gnu::always_inline]] inline auto max_of(V value) {
  return reduce_lanes(value, [](auto a, auto b) { return a > b ? a : b; });
}

// exp(r) of |r| <= log 2 / 2, without its power of two; x = n log 2 + r, log 2 in two parts, of which n times the first is exact.
constexpr float kExpRound = 0x1.8p23f;  // adding it leaves the nearest integer in the lowest bits

template <int64_t count>
[[gnu::always_inline]] inline void exp_series(
    const Vec<float> (&x)[count], const Vec<float> (&shifted)[count], Vec<float> (&series)[count]) {
  constexpr float kTerms[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
  Vec<float> r[count];
#pragma GCC unroll 8
  for (int64_t i = 0; i < count; ++i) r[i] = x[i] - (shifted[i] - kExpRound) * 0.693359375f;
#pragma GCC unroll 8
  for (int64_t i = 0; i < count; ++i) r[i] = r[i] - (shifted[i] - kExpRound) * -2.12194440e-4f;
#pragma GCC unroll 8
  for (int64_t i = 0; i < count; ++i) series[i] = splat(1.9875691500e-4f);  // Cephes' expf, S. Moshier
#pragma GCC unroll 8
  for (const float term : kTerms)
#pragma GCC unroll 8
    for (int64_t i = 0; i < count; ++i) series[i] = series[i] * r[i] + term;
#pragma GCC unroll 8
  for (int64_t i = 0; i < count; ++i) series[i] = series[i] * (r[i] * r[i]) + r[i] + 1.0f;
}

// 2^n of what was rounded to n, from -126 to 127; of any other n, anything.
[[gnu::always_inline]] inline Vec<float> exp_power(Vec<float> shifted) {
  return (Vec<float>)(((Vec<uint32_t>)shifted << 23) + 0x3f800000);
}

[[gnu::always_inline]] inline Vec<float> exp_of(Vec<float> x) {
  const Vec<float> shifted[1] = {x * 1.44269504088896341f + kExpRound};
  Vec<float> series[1];
  exp_series({x}, shifted, series);
  const Vec<uint32_t> power = ((Vec<uint32_t>)shifted[0] - (Vec<uint32_t>)splat(kExpRound)) << 23;
  const Vec<float> result = (Vec<float>)((Vec<uint32_t>)series[0] + power);
  const Vec<float> capped = x > 88.7228f ? splat(__builtin_inff()) : result;
  return x < -87.3365f ? Vec<float>{} : x != x ? x : capped;
}

// exp_of of count vectors x <= 0, for softmax: step by step on all of them, as one alone waits for each of its own steps.
template <int64_t count>
[[gnu::always_inline]] inline void exp_nonpositive(Vec<float> (&x)[count]) {
  Vec<float> shifted[count], series[count];
#pragma GCC unroll 8
  for (int64_t i = 0; i < count; ++i) shifted[i] = x[i] * 1.44269504088896341f + kExpRound;
  exp_series(x, shifted, series);
#pragma GCC unroll 8
  for (int64_t i = 0; i < count; ++i) {
    const Vec<float> result = series[i] * exp_power(shifted[i]);  // a product, so that NaN stays NaN
    x[i] = x[i] < -87.3365f ? Vec<float>{} : result;
  }
}

[[gnu::always_inline]] inline Vec<double> exp_of(Vec<double> x) {
  for (int64_t lane = 0; lane < kLanes<double>; ++lane) x[lane] = ::exp(x[lane]);
  return x;
}

template <int64_t count>
inline void exp_nonpositive(Vec<double> (&x)[count]) {
  for (int64_t i = 0; i < count; ++i) x[i] = exp_of(x[i]);
}

// Of a normal x > 0; 0 gives -inf; infinity and NaN stay.
[[gnu::always_inline]] inline Vec<float> log_of(Vec<float> x) {
  const Vec<int32_t> bits = (Vec<int32_t>)x;
  const Vec<int32_t> above = (bits & 0x7fffff) > 0x3504f3;  // the mantissa exceeds sqrt 2: halve it
  const Vec<float> m = (Vec<float>)((bits & 0x7fffff) | (above ? Vec<int32_t>{} + 0x3f000000 : Vec<int32_t>{} + 0x3f800000));
  const Vec<float> e = __builtin_convertvector((bits >> 23) - 127 - above, Vec<float>);
  const Vec<float> r = m - 1.0f, square = r * r;
  Vec<float> series = splat(7.0376836292e-2f);  // Cephes' logf, S. Moshier
  series = series * r - 1.1514610310e-1f;
  series = series * r + 1.1676998740e-1f;
  series = series * r - 1.2420140846e-1f;
  series = series * r + 1.4249322787e-1f;
  series = series * r - 1.6668057665e-1f;
  series = series * r + 2.0000714765e-1f;
  series = series * r - 2.4999993993e-1f;
  series = series * r + 3.3333331174e-1f;
  const Vec<float> result = (r + ((series * r * square - 2.12194440e-4f * e) - 0.5f * square)) + 0.693359375f * e;
  return x == 0.0f ? splat(-__builtin_inff()) : x < __builtin_inff() ? result : x;
}

[[gnu::always_inline]] inline Vec<double> log_of(Vec<double> x) {
  for (int64_t lane = 0; lane < kLanes<double>; ++lane) x[lane] = ::log(x[lane]);
  return x;
}

// 1 / (1 + exp(-x))
[[gnu::always_inline]] inline Vec<float> sigmoid_of(Vec<float> x) {
  Vec<float> y = -x;
  y = y > 89.0f ? splat(89.0f) : y;  // 2^128 below: infinity
  y = y < -87.0f ? splat(-87.0f) : y;
  const Vec<float> shifted[1] = {y * 1.44269504088896341f + kExpRound};
  Vec<float> series[1];
  exp_series({y}, shifted, series);
  return 1 / (1 + series[0] * exp_power(shifted[0]));
}

[[gnu::always_inline]] inline Vec<double> sigmoid_of(Vec<double> x) { return 1 / (1 + exp_of(-x)); }

// By polynomials of N. Juffa: of x itself near 0, of log(1 - erf |x|) beyond.
[[gnu::always_inline]] inline Vec<float> erf_of(Vec<float> x) {
  const Vec<float> size = x < 0.0f ? -x : x, square = x * x;
  Vec<float> near = splat(-5.96761703e-4f);
  near = near * square + 4.99119423e-3f;
  near = near * square - 2.67681349e-2f;
  near = near * square + 1.12819925e-1f;
  near = near * square - 3.76125336e-1f;
  near = near * square + 1.28379166e-1f;
  Vec<float> far = (size * -1.72853470e-5f + 3.83197126e-4f) * square + (size * -3.88396438e-3f + 2.42546219e-2f);
  far = far * size - 1.06777877e-1f;
  far = far * size - 6.34846687e-1f;
  far = far * size - 1.28717512e-1f;
  far = 1 - exp_of(far * size - size);
  far = size > 4.0f ? splat(1.0f) : far;  // where the polynomial may rise again
  return size > 0.927734375f ? (x < 0.0f ? -far : far) : near * x + x;
}

[[gnu::always_inline]] inline Vec<double> erf_of(Vec<double> x) {
  for (int64_t lane = 0; lane < kLanes<double>; ++lane) x[lane] = ::erf(x[lane]);
  return x;
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
