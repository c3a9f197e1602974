// Instructions that do the same to each lane, from a function of one lane.
#pragma once
#include <algorithm>
#include <cstdio>
#include <limits>
#include <tuple>
#include <type_traits>

#include "decode.h"

namespace ptxsim {

// The operands of an instruction as arrays of 32 lanes: d, a, b, c in the order they were decoded.
template <class F, class D, class... S, size_t... Index>
inline void run_lanes(Warp& warp, const Instruction& i, uint32_t mask, F f, std::index_sequence<Index...>) {
  D* d = warp.at<D>(i.o[0]);
  std::tuple<const S*...> sources(warp.at<S>(i.o[Index + 1])...);
  if (mask == kAllLanes) {
    for (int lane = 0; lane < kLanes; lane++) d[lane] = f(std::get<Index>(sources)[lane]...);
  } else {
    for (; mask; mask &= mask - 1) {
      const int lane = __builtin_ctz(mask);
      d[lane] = f(std::get<Index>(sources)[lane]...);
    }
  }
}

// F: a stateless function object of one lane, D f(S...).
template <class F, class D, class... S> Flow lanewise(Warp& warp, const Instruction& i, uint32_t mask) {
  run_lanes<F, D, S...>(warp, i, mask, F{}, std::index_sequence_for<S...>{});
  return Flow::Next;
}

// Decodes `op d, a, b, ...` of those types.
template <class F, class D, class... S> void decode_lanewise(Decoder& d, Class kind) {
  if (d.operand_count() != sizeof...(S) + 1) d.fail("it takes " + std::to_string(sizeof...(S) + 1) + " operands");
  d.to(0);
  size_t operand = 1;
  (d.from<S>(operand++), ...);
  d.i.kind = kind;
  d.i.run = lanewise<F, D, S...>;
}

inline bool is_float_type(const std::string& type) { return type.find('f') != std::string::npos; }

inline std::string hex(uint32_t value) {
  char text[12];
  snprintf(text, sizeof text, "%x", value);
  return text;
}

template <class T> struct Tag { using type = T; };

// Calls f(Tag<T>{}) with the C++ type of a PTX one; .b types are unsigned. Returns whether it is one of those asked for.
template <class F> bool with_integer(const std::string& type, F f) {
  if (type == "u32" || type == "b32") f(Tag<uint32_t>{});
  else if (type == "s32") f(Tag<int32_t>{});
  else if (type == "u64" || type == "b64") f(Tag<uint64_t>{});
  else if (type == "s64") f(Tag<int64_t>{});
  else if (type == "u16" || type == "b16") f(Tag<uint16_t>{});
  else if (type == "s16") f(Tag<int16_t>{});
  else if (type == "u8" || type == "b8") f(Tag<uint8_t>{});
  else if (type == "s8") f(Tag<int8_t>{});
  else return false;
  return true;
}

template <class F> bool with_bits(const std::string& type, F f) {   // untyped data of that size
  if (type == "pred") { f(Tag<uint8_t>{}); return true; }
  const std::string size = type.substr(type.find_first_of("0123456789"));
  if (type == "f16x2" || type == "bf16x2" || size == "32") f(Tag<uint32_t>{});
  else if (size == "64") f(Tag<uint64_t>{});
  else if (size == "16") f(Tag<uint16_t>{});
  else if (size == "8") f(Tag<uint8_t>{});
  else return false;
  return true;
}

template <class T> using Unsigned = std::make_unsigned_t<T>;

}  // namespace ptxsim
