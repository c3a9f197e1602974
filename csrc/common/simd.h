// One vector register of accumulators, by GCC's vector extension: Vec<float> and Vec<double>, with + - * / and comparisons as the
// compiler has them (a * b + c is one fused multiply-add where the processor has it). No torch, no STL: kernel units include this.
//
//   lanes     kLanes<acc>: 4 floats at baseline, 8 with AVX2, 16 with AVX-512
//   memory    any alignment; Half and BFloat16 widen to float and round to nearest even
//   math      exp and sigmoid of float within 2 ulp, 0 and infinity where they leave float's normal range, NaN stays NaN; double by
//             the C library
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

// ------------------------------------------------------------------------------------------------------------------- math

// The larger of each lane; b where either is NaN.
template <class V>
[[gnu::always_inline]] inline V max_lanes(V a, V b) {
  return a > b ? a : b;
}

// All lanes of one, taken together by halves: an order of its own, the same at every call.
template <class V, class Combine>
[[gnu::always_inline]] inline auto reduce_lanes(V value, const Combine& combine) {
  constexpr int64_t kCount = sizeof(V) / sizeof(value[0]);
  decltype(value[0] + value[0]) lanes[kCount];
  store_vector(lanes, value);
  for (int64_t half = kCount / 2; half > 0; half /= 2)
    for (int64_t lane = 0; lane < half; ++lane) lanes[lane] = combine(lanes[lane], lanes[lane + half]);
  return lanes[0];
}

template <class V>
[[gnu::always_inline]] inline auto sum_of(V value) {
  return reduce_lanes(value, [](auto a, auto b) { return a + b; });
}

template <class V>
[[gnu::always_inline]] inline auto max_of(V value) {
  return reduce_lanes(value, [](auto a, auto b) { return a > b ? a : b; });
}

// 2^n * (1 + r + ... + r^6/720) with x = n log 2 + r, |r| <= log 2 / 2; log 2 in two parts, of which n times the first is exact.
[[gnu::always_inline]] inline Vec<float> exp_of(Vec<float> x) {
  constexpr float kRound = 0x1.8p23f;  // adding it leaves the nearest integer in the lowest bits
  const Vec<float> shifted = x * 1.44269504088896341f + kRound;
  const Vec<float> n = shifted - kRound;
  const Vec<float> r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Vec<float> series = splat(1.9875691500e-4f);  // Cephes' expf, S. Moshier
  series = series * r + 1.3981999507e-3f;
  series = series * r + 8.3334519073e-3f;
  series = series * r + 4.1665795894e-2f;
  series = series * r + 1.6666665459e-1f;
  series = series * r + 5.0000001201e-1f;
  series = series * (r * r) + r + 1.0f;
  const Vec<int32_t> power = ((Vec<int32_t>)shifted - (Vec<int32_t>)splat(kRound)) << 23;
  const Vec<float> result = (Vec<float>)((Vec<int32_t>)series + power);
  const Vec<float> capped = x > 88.7228f ? splat(__builtin_inff()) : result;
  return x < -87.3365f ? Vec<float>{} : x != x ? x : capped;
}

[[gnu::always_inline]] inline Vec<double> exp_of(Vec<double> x) {
  for (int64_t lane = 0; lane < kLanes<double>; ++lane) x[lane] = ::exp(x[lane]);
  return x;
}

// 1 / (1 + exp(-x))
template <class V>
[[gnu::always_inline]] inline V sigmoid_of(V x) {
  return 1 / (1 + exp_of(-x));
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
