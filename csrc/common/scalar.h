// Storage types and the type that sums are kept in. No torch, no STL: kernel units include this.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/cpu/isa.h"

namespace vdiff {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

enum class DType { Float32, Float64, Float16, BFloat16 };

constexpr int64_t element_bytes(DType dtype) { return dtype == DType::Float64 ? 8 : dtype == DType::Float32 ? 4 : 2; }

template <class T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <class T>
using acc_t = typename Accumulator<T>::type;

inline namespace VDIFF_ISA {

inline uint32_t float_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline float to_acc(float value) { return value; }
inline double to_acc(double value) { return value; }
inline float to_acc(BFloat16 value) { return float_from_bits(uint32_t(value.bits) << 16); }

inline float to_acc(Half value) {
  const uint32_t sign = uint32_t(value.bits & 0x8000) << 16;
  const uint32_t magnitude = uint32_t(value.bits & 0x7fff) << 13;
  if (magnitude >= 0x0f800000) return float_from_bits(sign | magnitude | 0x7f800000);  // infinity, NaN
  // Multiplying by 2^112 rebiases the exponent and normalises subnormals, both exactly.
  return float_from_bits(sign | float_bits(float_from_bits(magnitude) * 0x1p112f));
}

// Round to nearest, ties to even.
template <class T>
T from_acc(acc_t<T> value);
template <>
inline float from_acc<float>(float value) {
  return value;
}
template <>
inline double from_acc<double>(double value) {
  return value;
}
template <>
inline BFloat16 from_acc<BFloat16>(float value) {
  const uint32_t bits = float_bits(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return {uint16_t((bits >> 16) | 0x40)};  // NaN stays NaN
  return {uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
template <>
inline Half from_acc<Half>(float value) {
  const uint32_t bits = float_bits(value);
  const uint16_t sign = uint16_t((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return {uint16_t(sign | 0x7e00)};   // NaN
  if (magnitude >= 0x477ff000) return {uint16_t(sign | 0x7c00)};  // 65520 and above round to infinity
  if (magnitude < 0x38800000) {
    // Below 2^-14: adding 0.5 leaves the subnormal's bits, correctly rounded, at the bottom of the sum.
    const float sum = float_from_bits(magnitude) + 0.5f;
    return {uint16_t(sign | (float_bits(sum) - 0x3f000000))};
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return {uint16_t(sign | ((rounded - 0x38000000) >> 13))};
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T>
T min_of(T a, T b) {
  return b < a ? b : a;
}
template <class T>
T max_of(T a, T b) {
  return a < b ? b : a;
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
