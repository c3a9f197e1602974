// Floating-point arithmetic, comparisons and selections. Half types compute as PTX says: each operation rounded once.
#include <cfenv>

#include "formats.h"
#include "lanes.h"

namespace ptxsim {
namespace {

// ---- how a number of each type is read from and written to its bits

struct Float32 {
  using Bits = float;
  using Value = float;
  static Value get(Bits bits, bool ftz) { return ftz ? flush(bits) : bits; }
  static Bits put(Value value, bool ftz) { return std::isnan(value) ? bits_as<float>(0x7fffffffu) : ftz ? flush(value) : value; }
};
struct Float64 {
  using Bits = double;
  using Value = double;
  static Value get(Bits bits, bool) { return bits; }
  static Bits put(Value value, bool) { return value; }
};
template <class Format> struct Half {
  using Bits = uint16_t;
  using Value = float;
  static uint16_t flushed(uint16_t bits, bool ftz) {
    const uint16_t exponent = ((1 << Format::kExponent) - 1) << Format::kMantissa;
    return ftz && (bits & exponent) == 0 ? bits & 0x8000 : bits;
  }
  static Value get(Bits bits, bool ftz) { return unpack<Format>(flushed(bits, ftz)); }
  static Bits put(Value value, bool ftz) { return flushed(pack_nearest<Format>(value), ftz); }
  static Bits put_odd(double value, bool ftz) {
    return flushed(pack<Format>(round_to(value, Format::kMantissa, Format::kExponent, Rounding::Nearest)), ftz);
  }
};

// ---- one operation on one number

enum Option : uint8_t { kFtz = 1, kSat = 2, kRelu = 4, kNan = 8, kXorsign = 16, kMode = 32 };

template <class V> V saturate(V value) { return std::isnan(value) ? V(0) : value < 0 ? V(0) : value > 1 ? V(1) : value; }

template <class V> struct FAdd { V operator()(V a, V b) const { return a + b; } };
template <class V> struct FSub { V operator()(V a, V b) const { return a - b; } };
template <class V> struct FMul { V operator()(V a, V b) const { return a * b; } };
template <class V> struct FDiv { V operator()(V a, V b) const { return a / b; } };
template <class V> struct FDivApprox {   // its reciprocal of a large number is zero
  V operator()(V a, V b) const { return std::fabs(b) > V(0x1p126) && std::isfinite(b) ? a * std::copysign(V(0), b) : a / b; }
};
template <class V> struct FFma { V operator()(V a, V b, V c) const { return std::fma(a, b, c); } };
template <class V> struct FRcp { V operator()(V a) const { return V(1) / a; } };
template <class V> struct FSqrt { V operator()(V a) const { return std::sqrt(a); } };
// The approximations are at their best: the true value, rounded.
template <class V> struct FRsqrt { V operator()(V a) const { return V(1 / std::sqrt((double)a)); } };
template <class V> struct FEx2 { V operator()(V a) const { return V(std::exp2((double)a)); } };
template <class V> struct FLg2 { V operator()(V a) const { return V(std::log2((double)a)); } };
template <class V> struct FSin { V operator()(V a) const { return V(std::sin((double)a)); } };
template <class V> struct FCos { V operator()(V a) const { return V(std::cos((double)a)); } };
template <class V> struct FTanh { V operator()(V a) const { return V(std::tanh((double)a)); } };

template <class V, bool kMax> V extreme(V a, V b, uint8_t option) {
  const bool negative = std::signbit(a) != std::signbit(b);
  if (option & kXorsign) a = std::fabs(a), b = std::fabs(b);
  V r;
  if (std::isnan(a) || std::isnan(b)) {
    r = option & kNan ? std::numeric_limits<V>::quiet_NaN() : std::isnan(a) ? b : a;
  } else {
    const bool a_below = a < b || (a == b && std::signbit(a) && !std::signbit(b));
    r = a_below == kMax ? b : a;
  }
  return option & kXorsign && negative ? -r : r;
}

// Roundings other than to nearest: the processor's own.
struct RoundingScope {
  int before = std::fegetround();
  explicit RoundingScope(Rounding rounding) {
    std::fesetround(rounding == Rounding::Zero ? FE_TOWARDZERO : rounding == Rounding::Down ? FE_DOWNWARD : rounding == Rounding::Up ? FE_UPWARD : FE_TONEAREST);
  }
  ~RoundingScope() { std::fesetround(before); }
};

template <class Type, template <class> class F, size_t kSources> Flow compute(Warp& warp, const Instruction& i, uint32_t mask) {
  using V = typename Type::Value;
  using Bits = typename Type::Bits;
  Bits* d = warp.at<Bits>(i.o[0]);
  const Bits* s[kSources];
  for (size_t n = 0; n < kSources; n++) s[n] = warp.at<Bits>(i.o[n + 1]);
  const bool ftz = i.option & kFtz;
  auto one = [&](int lane) {
    V r;
    if constexpr (kSources == 1) r = F<V>()(Type::get(s[0][lane], ftz));
    else if constexpr (kSources == 2) r = F<V>()(Type::get(s[0][lane], ftz), Type::get(s[1][lane], ftz));
    else r = F<V>()(Type::get(s[0][lane], ftz), Type::get(s[1][lane], ftz), Type::get(s[2][lane], ftz));
    if (i.option & kSat) r = saturate(r);
    if ((i.option & kRelu) && (r < 0 || std::isnan(r))) r = std::isnan(r) ? r : V(0);
    d[lane] = Type::put(r, ftz);
  };
  if (i.option & kMode) {
    RoundingScope scope{Rounding(i.count)};
    for_lanes(mask, one);
  } else {
    for_lanes(mask, one);
  }
  return Flow::Next;
}

template <class Format> Flow fma_half(Warp& warp, const Instruction& i, uint32_t mask) {
  using Type = Half<Format>;
  uint16_t* d = warp.at<uint16_t>(i.o[0]);
  const uint16_t *a = warp.at<uint16_t>(i.o[1]), *b = warp.at<uint16_t>(i.o[2]), *c = warp.at<uint16_t>(i.o[3]);
  const bool ftz = i.option & kFtz;
  for_lanes(mask, [&](int lane) {
    double r = fma_to_odd(Type::get(a[lane], ftz), Type::get(b[lane], ftz), Type::get(c[lane], ftz));
    if (i.option & kSat) r = saturate(r);
    if ((i.option & kRelu) && r < 0) r = 0;
    d[lane] = Type::put_odd(r, ftz);
  });
  return Flow::Next;
}

template <class Type, bool kMax> Flow min_max(Warp& warp, const Instruction& i, uint32_t mask) {
  using Bits = typename Type::Bits;
  Bits* d = warp.at<Bits>(i.o[0]);
  const Bits *a = warp.at<Bits>(i.o[1]), *b = warp.at<Bits>(i.o[2]);
  const bool ftz = i.option & kFtz;
  for_lanes(mask, [&](int lane) {
    d[lane] = Type::put(extreme<typename Type::Value, kMax>(Type::get(a[lane], ftz), Type::get(b[lane], ftz), i.option), ftz);
  });
  return Flow::Next;
}

template <class Type, bool kAbs> Flow sign(Warp& warp, const Instruction& i, uint32_t mask) {
  using Bits = typename Type::Bits;
  using Word = std::conditional_t<sizeof(Bits) == 8, uint64_t, std::conditional_t<sizeof(Bits) == 4, uint32_t, uint16_t>>;
  const Word top = Word(Word(1) << (8 * sizeof(Word) - 1));
  Word* d = warp.at<Word>(i.o[0]);
  const Bits* a = warp.at<Bits>(i.o[1]);
  for_lanes(mask, [&](int lane) {
    Bits bits = a[lane];
    if constexpr (sizeof(Bits) == 4) bits = Type::get(bits, i.option & kFtz);
    if constexpr (sizeof(Bits) == 2) bits = Type::flushed(bits, i.option & kFtz);
    const Word word = bits_as<Word>(bits);
    d[lane] = kAbs ? Word(word & ~top) : Word(word ^ top);
  });
  return Flow::Next;
}

// A packed pair: the same on either half, of a warp that has twice the lanes.
template <Run kScalar> Flow packed(Warp& warp, const Instruction& i, uint32_t mask) {
  Instruction half = i;
  const size_t n = i.o.size();
  uint16_t values[4][kLanes];
  const int32_t scratch = special_offset(kSpecials);   // four rows beyond the special registers
  for (int part = 0; part < 2; part++) {
    for (size_t k = 1; k < n; k++) {
      const uint16_t* pairs = warp.at<uint16_t>(i.o[k]);
      for (int lane = 0; lane < kLanes; lane++) values[k][lane] = pairs[2 * lane + part];
      std::memcpy(warp.at<uint16_t>(scratch + int32_t(k) * kSlot), values[k], sizeof values[k]);
      half.o[k] = scratch + int32_t(k) * kSlot;
    }
    half.o[0] = scratch;
    kScalar(warp, half, mask);
    const uint16_t* result = warp.at<uint16_t>(scratch);
    std::memcpy(values[0], result, sizeof values[0]);
    // Both halves of the sources are needed before the first of the result is stored over them.
    if (part == 0) std::memcpy(warp.at<uint16_t>(scratch + 4 * kSlot), values[0], sizeof values[0]);
  }
  uint16_t* d = warp.at<uint16_t>(i.o[0]);
  const uint16_t* low = warp.at<uint16_t>(scratch + 4 * kSlot);
  for_lanes(mask, [&](int lane) { d[2 * lane] = low[lane], d[2 * lane + 1] = values[0][lane]; });
  return Flow::Next;
}

// ---- decoding

void take_options(Decoder& d) {
  uint8_t option = 0;
  if (d.take("ftz")) option |= kFtz;
  if (d.take("sat")) option |= kSat;
  if (d.take("relu")) option |= kRelu;
  if (d.take("NaN")) option |= kNan;
  if (d.take("xorsign")) { option |= kXorsign; d.take("abs"); }
  d.take("approx"), d.take("full"), d.take("rn");
  const std::string mode = d.take_any({"rz", "rm", "rp"});
  if (!mode.empty()) {
    option |= kMode;
    d.i.count = uint8_t(mode == "rz" ? Rounding::Zero : mode == "rm" ? Rounding::Down : Rounding::Up);
  }
  d.i.option = option;
}

template <class Bits> void take_operands(Decoder& d, size_t sources) {
  if (d.operand_count() != sources + 1) d.fail("it takes " + std::to_string(sources + 1) + " operands");
  d.to(0);
  for (size_t s = 1; s <= sources; s++) d.from<Bits>(s);
}

template <template <class> class F, size_t kSources> void arithmetic(Decoder& d, const std::string& type) {
  take_options(d);
  const bool is_mode = d.i.option & kMode;
  if (type == "f32") {
    take_operands<float>(d, kSources);
    d.i.kind = Class::Float, d.i.run = compute<Float32, F, kSources>;
  } else if (type == "f64") {
    take_operands<double>(d, kSources);
    d.i.kind = Class::Double, d.i.run = compute<Float64, F, kSources>;
  } else if (is_mode) {
    d.fail("rounding of ." + type);
  } else if (type == "f16" || type == "bf16") {
    take_operands<uint16_t>(d, kSources);
    d.i.kind = Class::Half;
    d.i.run = type == "f16" ? compute<Half<F16>, F, kSources> : compute<Half<BF16>, F, kSources>;
  } else if (type == "f16x2" || type == "bf16x2") {
    take_operands<uint32_t>(d, kSources);
    d.i.kind = Class::Half;
    d.i.run = type == "f16x2" ? packed<compute<Half<F16>, F, kSources>> : packed<compute<Half<BF16>, F, kSources>>;
  } else {
    d.fail("type ." + type);
  }
}

void decode_fma(Decoder& d, const std::string& type) {
  if (type == "f32" || type == "f64") return arithmetic<FFma, 3>(d, type);
  take_options(d);
  d.i.kind = Class::Half;
  if (type == "f16" || type == "bf16") {
    take_operands<uint16_t>(d, 3);
    d.i.run = type == "f16" ? fma_half<F16> : fma_half<BF16>;
  } else if (type == "f16x2" || type == "bf16x2") {
    take_operands<uint32_t>(d, 3);
    d.i.run = type == "f16x2" ? packed<fma_half<F16>> : packed<fma_half<BF16>>;
  } else {
    d.fail("type ." + type);
  }
}

template <bool kMax> void decode_min_max(Decoder& d, const std::string& type) {
  take_options(d);
  d.i.kind = type == "f64" ? Class::Double : type == "f32" ? Class::Float : Class::Half;
  if (type == "f32") take_operands<float>(d, 2), d.i.run = min_max<Float32, kMax>;
  else if (type == "f64") take_operands<double>(d, 2), d.i.run = min_max<Float64, kMax>;
  else if (type == "f16") take_operands<uint16_t>(d, 2), d.i.run = min_max<Half<F16>, kMax>;
  else if (type == "bf16") take_operands<uint16_t>(d, 2), d.i.run = min_max<Half<BF16>, kMax>;
  else if (type == "f16x2") take_operands<uint32_t>(d, 2), d.i.run = packed<min_max<Half<F16>, kMax>>;
  else if (type == "bf16x2") take_operands<uint32_t>(d, 2), d.i.run = packed<min_max<Half<BF16>, kMax>>;
  else d.fail("type ." + type);
}

template <bool kAbs> void decode_sign(Decoder& d, const std::string& type) {
  take_options(d);
  d.i.kind = type == "f64" ? Class::Double : type == "f32" ? Class::Float : Class::Half;
  if (type == "f32") take_operands<float>(d, 1), d.i.run = sign<Float32, kAbs>;
  else if (type == "f64") take_operands<double>(d, 1), d.i.run = sign<Float64, kAbs>;
  else if (type == "f16" || type == "bf16") take_operands<uint16_t>(d, 1), d.i.run = sign<Half<F16>, kAbs>;
  else if (type == "f16x2" || type == "bf16x2") take_operands<uint32_t>(d, 1), d.i.run = packed<sign<Half<F16>, kAbs>>;
  else d.fail("type ." + type);
}

// ---- comparisons

enum Comparison : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kNum, kNanPair };
enum Combine : uint8_t { kPlain, kAnd, kOr, kXor };

template <class T> bool compare(uint8_t comparison, T a, T b, bool unordered_holds) {
  if constexpr (std::is_floating_point_v<T>) {
    const bool unordered = std::isnan(a) || std::isnan(b);
    if (comparison == kNum) return !unordered;
    if (comparison == kNanPair) return unordered;
    if (unordered) return unordered_holds;
  }
  switch (comparison) {
    case kEq: return a == b;
    case kNe: return a != b;
    case kLt: return a < b;
    case kLe: return a <= b;
    case kGt: return a > b;
    default: return a >= b;
  }
}

template <class T> struct Plain {
  using Bits = T;
  static T get(T bits, bool ftz) {
    if constexpr (std::is_same_v<T, float>) return ftz ? flush(bits) : bits;
    else return bits;
  }
};

// setp p|q, a, b{, c}: o = p, q, a, b, c. option: comparison, combination in bits 4-5, unordered 64, ftz 128. count 1: c is negated.
template <class Type> Flow set_predicate(Warp& warp, const Instruction& i, uint32_t mask) {
  using Bits = typename Type::Bits;
  uint8_t *p = warp.at<uint8_t>(i.o[0]), *q = warp.at<uint8_t>(i.o[1]);
  const Bits *a = warp.at<Bits>(i.o[2]), *b = warp.at<Bits>(i.o[3]);
  const uint8_t* c = i.o.size() > 4 ? warp.at<uint8_t>(i.o[4]) : nullptr;
  const uint8_t comparison = i.option & 15, combine = i.option >> 4 & 3;
  const bool unordered = i.option & 64, ftz = i.option & 128;
  for_lanes(mask, [&](int lane) {
    const bool holds = compare(comparison, Type::get(a[lane], ftz), Type::get(b[lane], ftz), unordered);
    auto with = [&](bool value) -> uint8_t {
      if (combine == kPlain) return value;
      const bool other = bool(c[lane]) != bool(i.count);
      return combine == kAnd ? value && other : combine == kOr ? value || other : value != other;
    };
    const uint8_t yes = with(holds), no = with(!holds);
    p[lane] = yes, q[lane] = no;
  });
  return Flow::Next;
}

template <class Type> Flow set_value(Warp& warp, const Instruction& i, uint32_t mask) {   // set: all ones or 1.0
  using Bits = typename Type::Bits;
  uint32_t* d = warp.at<uint32_t>(i.o[0]);
  const Bits *a = warp.at<Bits>(i.o[1]), *b = warp.at<Bits>(i.o[2]);
  for_lanes(mask, [&](int lane) {
    const bool holds = compare(uint8_t(i.option & 15), Type::get(a[lane], i.option & 128), Type::get(b[lane], i.option & 128), i.option & 64);
    d[lane] = !holds ? 0 : i.count ? 0x3f800000u : ~0u;
  });
  return Flow::Next;
}

uint8_t take_comparison(Decoder& d) {
  struct Named { const char* name; uint8_t comparison; bool unordered; };
  static const Named names[] = {{"eq", kEq, false}, {"ne", kNe, false}, {"lt", kLt, false}, {"le", kLe, false}, {"gt", kGt, false},
                                {"ge", kGe, false}, {"lo", kLt, false}, {"ls", kLe, false}, {"hi", kGt, false}, {"hs", kGe, false},
                                {"equ", kEq, true}, {"neu", kNe, true}, {"ltu", kLt, true}, {"leu", kLe, true}, {"gtu", kGt, true},
                                {"geu", kGe, true}, {"num", kNum, false}, {"nan", kNanPair, true}};
  for (const Named& named : names)
    if (d.take(named.name)) return uint8_t(named.comparison | (named.unordered ? 64 : 0));
  d.fail("no comparison that is known");
}

template <class Use> void with_compared(Decoder& d, const std::string& type, Use use) {
  if (type == "f32") use(Plain<float>{});
  else if (type == "f64") use(Plain<double>{});
  else if (type == "f16") use(Half<F16>{});
  else if (type == "bf16") use(Half<BF16>{});
  else if (!with_integer(type, [&](auto tag) {
             using T = typename decltype(tag)::type;
             if constexpr (sizeof(T) >= 2) use(Plain<T>{});
           }))
    d.fail("type ." + type);
}

void decode_setp(Decoder& d) {
  const std::string type = d.take_type();
  uint8_t option = take_comparison(d);
  const std::string combine = d.take_any({"and", "or", "xor"});
  if (d.take("ftz")) option |= 128;
  option |= uint8_t((combine == "and" ? kAnd : combine == "or" ? kOr : combine == "xor" ? kXor : kPlain) << 4);
  d.to(0);
  if (d.atoms(0) > 1) d.to(0, 1);
  else d.i.o.push_back(special_offset(kSink));
  with_compared(d, type, [&](auto compared) {
    using Type = decltype(compared);
    d.from<typename Type::Bits>(1), d.from<typename Type::Bits>(2);
    d.i.run = set_predicate<Type>;
  });
  if (!combine.empty()) {
    d.from<uint8_t>(3);
    d.i.count = d.atom(3).negated;
  }
  d.i.option = option;
  d.i.kind = is_float_type(type) ? Class::Float : Class::Integer;
}

void decode_set(Decoder& d) {
  const std::string type = d.take_type(), result = d.take_type();
  uint8_t option = take_comparison(d);
  if (d.take("ftz")) option |= 128;
  d.to(0);
  with_compared(d, type, [&](auto compared) {
    using Type = decltype(compared);
    d.from<typename Type::Bits>(1), d.from<typename Type::Bits>(2);
    d.i.run = set_value<Type>;
  });
  d.i.option = option, d.i.count = result == "f32", d.i.kind = Class::Float;
}

struct Testp {
  static bool holds(uint8_t which, double value, bool subnormal) {
    switch (which) {
      case 0: return std::isfinite(value);
      case 1: return std::isinf(value);
      case 2: return !std::isnan(value);
      case 3: return std::isnan(value);
      case 4: return std::isfinite(value) && !subnormal;   // zero counts as normal
      default: return subnormal;
    }
  }
};
template <class T> Flow test_number(Warp& warp, const Instruction& i, uint32_t mask) {
  uint8_t* p = warp.at<uint8_t>(i.o[0]);
  const T* a = warp.at<T>(i.o[1]);
  for_lanes(mask, [&](int lane) { p[lane] = Testp::holds(i.option, a[lane], std::fpclassify(a[lane]) == FP_SUBNORMAL); });
  return Flow::Next;
}
void decode_testp(Decoder& d) {
  const std::string type = d.take_type();
  const std::string which = d.take_any({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
  static const char* names[] = {"finite", "infinite", "number", "notanumber", "normal", "subnormal"};
  for (uint8_t n = 0; n < 6; n++)
    if (which == names[n]) d.i.option = n;
  d.to(0);
  if (type == "f32") d.from<float>(1), d.i.run = test_number<float>;
  else d.from<double>(1), d.i.run = test_number<double>;
  d.i.kind = Class::Float;
}

template <class T> struct Copysign { T operator()(T a, T b) const { return std::copysign(b, a); } };
void decode_copysign(Decoder& d) {
  if (d.take_type() == "f32") decode_lanewise<Copysign<float>, float, float, float>(d, Class::Float);
  else decode_lanewise<Copysign<double>, double, double, double>(d, Class::Double);
}

template <template <class> class F> void only(Decoder& d) { arithmetic<F, 1>(d, d.take_type()); }

}  // namespace

void decode_float_arithmetic(Decoder& d, const std::string& type) {
  if (d.name == "add") return arithmetic<FAdd, 2>(d, type);
  if (d.name == "sub") return arithmetic<FSub, 2>(d, type);
  if (d.name == "mul") return arithmetic<FMul, 2>(d, type);
  if (d.name == "div") return d.take("approx") ? arithmetic<FDivApprox, 2>(d, type) : arithmetic<FDiv, 2>(d, type);
  if (d.name == "mad") return decode_fma(d, type);
  if (d.name == "min") return decode_min_max<false>(d, type);
  if (d.name == "max") return decode_min_max<true>(d, type);
  if (d.name == "abs") return decode_sign<true>(d, type);
  if (d.name == "neg") return decode_sign<false>(d, type);
  d.fail("type ." + type);
}

const std::vector<Entry>& floating_table() {
  static const std::vector<Entry> table = {
      {"fma", "{.rn,rz,rm,rp}{.ftz}{.sat}{.relu}.{f32,f64,f16,f16x2,bf16,bf16x2}", "d = a * b + c, rounded once",
       [](Decoder& d) { decode_fma(d, d.take_type()); }},
      {"rcp", "{.approx}{.ftz}.{f32,f64}", "d = 1 / a", only<FRcp>},
      {"sqrt", "{.approx}{.ftz}.{f32,f64}", "d = square root of a", only<FSqrt>},
      {"rsqrt", ".approx{.ftz}.{f32,f64}", "d = 1 / square root of a", only<FRsqrt>},
      {"ex2", ".approx{.ftz}.{f32,f16,f16x2,bf16,bf16x2}", "d = 2^a", only<FEx2>},
      {"lg2", ".approx{.ftz}.f32", "d = log2(a)", only<FLg2>},
      {"sin", ".approx{.ftz}.f32", "d = sin(a)", only<FSin>},
      {"cos", ".approx{.ftz}.f32", "d = cos(a)", only<FCos>},
      {"tanh", ".approx.{f32,f16,f16x2,bf16,bf16x2}", "d = tanh(a)", only<FTanh>},
      {"setp", ".cmp{.and,or,xor}{.ftz}.{u16..f64}", "p = a cmp b, q = not so, both with c", decode_setp},
      {"set", ".cmp{.ftz}.{u32,s32,f32}.{u16..f64}", "d = a cmp b as all ones or 1.0", decode_set},
      {"testp", ".{finite..subnormal}.{f32,f64}", "p = is a of that kind", decode_testp},
      {"copysign", ".{f32,f64}", "d = b with the sign of a", decode_copysign},
  };
  return table;
}

}  // namespace ptxsim
