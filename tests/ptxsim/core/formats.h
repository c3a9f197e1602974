// Floating formats and the rounding of exact values to them.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

namespace ptxsim {

template <class To, class From> inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

enum class Rounding : uint8_t { Nearest, Zero, Down, Up, NearestAway };   // .rn .rz .rm .rp .rna

// exact rounded to a format of `mantissa` stored bits and `exponent` bits, as its value.
inline long double round_to(long double exact, int mantissa, int exponent, Rounding rounding, bool finite = false) {
  if (std::isnan(exact) || std::isinf(exact) || exact == 0) {
    if (!(finite && std::isinf(exact))) return exact;
  }
  const int bias = (1 << (exponent - 1)) - 1;
  const long double largest = std::ldexp(2.0L - std::ldexp(1.0L, -mantissa), bias);
  if (std::isinf(exact)) return std::copysign(largest, exact);
  int e;
  std::frexp(exact, &e);  // |exact| in [2^(e-1), 2^e)
  const int quantum = std::max(e - 1, 1 - bias) - mantissa;
  const long double scaled = std::ldexp(exact, -quantum);
  long double whole;
  switch (rounding) {
    case Rounding::Nearest: whole = std::nearbyint(scaled); break;
    case Rounding::Zero: whole = std::trunc(scaled); break;
    case Rounding::Down: whole = std::floor(scaled); break;
    case Rounding::Up: whole = std::ceil(scaled); break;
    default: whole = std::round(scaled);
  }
  const long double value = std::copysign(std::ldexp(whole, quantum), exact);
  if (std::fabs(value) <= largest) return value;
  const bool to_largest = finite || rounding == Rounding::Zero || (rounding == Rounding::Down && exact > 0) ||
                          (rounding == Rounding::Up && exact < 0);
  return std::copysign(to_largest ? largest : std::numeric_limits<long double>::infinity(), exact);
}

struct F16 {
  using Bits = uint16_t;
  static constexpr int kMantissa = 10, kExponent = 5;
};
struct BF16 {
  using Bits = uint16_t;
  static constexpr int kMantissa = 7, kExponent = 8;
};

// The 16 bits of a value that the format has.
template <class Format> inline uint16_t pack(long double value) {
  constexpr int kBias = (1 << (Format::kExponent - 1)) - 1;
  if (std::isnan(value)) return 0x7fff;
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  value = std::fabs(value);
  if (value == 0) return sign;
  if (std::isinf(value)) return uint16_t(sign | (((1 << Format::kExponent) - 1) << Format::kMantissa));
  int e;
  std::frexp(value, &e);
  const int exponent = e - 1 + kBias;
  if (exponent <= 0) return uint16_t(sign | uint16_t(std::ldexp(value, kBias - 1 + Format::kMantissa)));
  const long double fraction = std::ldexp(value, -(e - 1)) - 1;
  return uint16_t(sign | exponent << Format::kMantissa | uint16_t(std::ldexp(fraction, Format::kMantissa)));
}

template <class Format> inline float unpack(uint16_t bits) {
  if constexpr (Format::kExponent == 8) {
    return bits_as<float>(uint32_t(bits) << 16);
  } else {
    const uint32_t sign = uint32_t(bits & 0x8000) << 16, magnitude = bits & 0x7fff;
    if (magnitude >= 0x7c00) return bits_as<float>(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    // Scaled by a power of two: exact, denormals included.
    const float scaled = bits_as<float>(magnitude << 13) * 0x1p112f;
    return bits_as<float>(bits_as<uint32_t>(scaled) | sign);
  }
}

// A float to the nearest, ties to even, without the general way's cost.
template <class Format> inline uint16_t pack_nearest(float value) {
  const uint32_t bits = bits_as<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
  if constexpr (Format::kExponent == 8) {
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  } else {
    const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x477ff000) return sign | 0x7c00;        // 65,520 and above
    if (magnitude < 0x38800000) {                             // below the least normal: let float addition round it
      const float shifted = bits_as<float>(magnitude) + 0.5f;
      return uint16_t(sign | (bits_as<uint32_t>(shifted) - 0x3f000000));
    }
    return uint16_t(sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13));
  }
}

inline float flush(float value) { return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value; }

// a * b + c, rounded once to odd: what is rounded to fewer bits afterwards is as if rounded from the exact value. The product of
// two 16-bit numbers is exact in double.
inline double fma_to_odd(double a, double b, double c) {
  const double p = a * b, s = p + c;
  if (!std::isfinite(s)) return s;
  const double back = s - p, error = (p - (s - back)) + (c - back);
  if (error == 0) return s;
  int64_t bits = bits_as<int64_t>(s);
  if ((error < 0) != (s < 0)) bits--;   // s lies beyond the exact value: back towards zero
  return bits_as<double>(bits | 1);
}

}  // namespace ptxsim
