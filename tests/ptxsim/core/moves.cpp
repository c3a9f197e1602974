// Moves, selections and conversions between types.
#include <cfenv>

#include "formats.h"
#include "lanes.h"

namespace ptxsim {
namespace {

template <class T> struct Same { T operator()(T a) const { return a; } };
template <class T> struct Select { T operator()(T a, T b, uint8_t p) const { return p ? a : b; } };
template <class T> struct SelectBySign { T operator()(T a, T b, int32_t c) const { return c >= 0 ? a : b; } };
template <class T, bool kFtz> struct SelectBySignF { T operator()(T a, T b, float c) const { return (kFtz ? flush(c) : c) >= 0 ? a : b; } };

// mov.b64 {a, b}, d and its like: `count` parts of `bytes` each.
Flow unpack_parts(Warp& warp, const Instruction& i, uint32_t mask) {
  const uint8_t* source = warp.at<uint8_t>(i.o[i.count]);
  for (int part = 0; part < i.count; part++) {
    uint8_t* d = warp.at<uint8_t>(i.o[part]);
    for_lanes(mask, [&](int lane) { std::memcpy(d + lane * i.bytes, source + (lane * i.count + part) * i.bytes, i.bytes); });
  }
  return Flow::Next;
}
Flow pack_parts(Warp& warp, const Instruction& i, uint32_t mask) {
  uint8_t* d = warp.at<uint8_t>(i.o[0]);
  for (int part = 0; part < i.count; part++) {
    const uint8_t* source = warp.at<uint8_t>(i.o[part + 1]);
    for_lanes(mask, [&](int lane) { std::memcpy(d + (lane * i.count + part) * i.bytes, source + lane * i.bytes, i.bytes); });
  }
  return Flow::Next;
}

uint32_t size_of(const std::string& type) {
  if (type == "pred") return 1;
  if (type == "f16x2" || type == "bf16x2") return 4;
  return uint32_t(std::stoi(type.substr(type.find_first_of("0123456789")))) / 8;
}

void decode_mov(Decoder& d) {
  const std::string type = d.take_type();
  d.i.kind = Class::Move;
  const size_t to = d.atoms(0), from = d.atoms(1);
  if (to > 1) {
    d.i.count = uint8_t(to), d.i.bytes = uint8_t(size_of(type) / to);
    for (size_t part = 0; part < to; part++) d.to(0, part);
    d.from_bytes(1, 0, size_of(type));
    d.i.run = unpack_parts;
  } else if (from > 1) {
    d.i.count = uint8_t(from), d.i.bytes = uint8_t(size_of(type) / from);
    d.to(0);
    for (size_t part = 0; part < from; part++) d.from_bytes(1, part, d.i.bytes);
    d.i.run = pack_parts;
  } else {
    with_bits(type, [&](auto tag) {
      using T = typename decltype(tag)::type;
      decode_lanewise<Same<T>, T, T>(d, Class::Move);
    });
  }
}

// Reading of a clock: any rising number does.
Flow read_clock(Warp& warp, const Instruction& i, uint32_t mask) {
  static thread_local uint64_t clock = 0;
  clock += 17;
  if (i.bytes == 8) for_lanes(mask, [&](int lane) { warp.at<uint64_t>(i.o[0])[lane] = clock; });
  else for_lanes(mask, [&](int lane) { warp.at<uint32_t>(i.o[0])[lane] = uint32_t(clock); });
  return Flow::Next;
}

void decode_selp(Decoder& d) {
  const std::string type = d.take_type();
  if (!with_bits(type, [&](auto tag) {
        using T = typename decltype(tag)::type;
        decode_lanewise<Select<T>, T, T, T, uint8_t>(d, Class::Move);
      }))
    d.fail("type ." + type);
}

void decode_slct(Decoder& d) {
  const std::string by = d.take_type(), type = d.take_type();
  const bool ftz = d.take("ftz");
  with_bits(type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (by == "f32" && ftz) decode_lanewise<SelectBySignF<T, true>, T, T, T, float>(d, Class::Move);
    else if (by == "f32") decode_lanewise<SelectBySignF<T, false>, T, T, T, float>(d, Class::Move);
    else decode_lanewise<SelectBySign<T>, T, T, T, int32_t>(d, Class::Move);
  });
}

// ---- cvt

enum Number : uint8_t { kU8, kS8, kU16, kS16, kU32, kS32, kU64, kS64, kF16, kBF16, kF32, kF64, kTF32, kNumbers };

Number number_of(const Decoder& d, const std::string& type) {
  static const char* names[] = {"u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64", "f16", "bf16", "f32", "f64", "tf32"};
  for (uint8_t n = 0; n < kNumbers; n++)
    if (type == names[n]) return Number(n);
  d.fail("type ." + type);
}
bool floats(Number n) { return n >= kF16; }
bool is_signed(Number n) { return n < kF16 && n % 2 == 1; }
int bits_of(Number n) {
  static const int bits[] = {8, 8, 16, 16, 32, 32, 64, 64, 16, 16, 32, 64, 32};
  return bits[n];
}
int mantissa_of(Number n) { return n == kF16 ? 10 : n == kBF16 ? 7 : n == kTF32 ? 10 : n == kF32 ? 23 : 52; }
int exponent_of(Number n) { return n == kF16 ? 5 : n == kF64 ? 11 : 8; }

enum : uint8_t { kCvtFtz = 1, kCvtSat = 2, kSatFinite = 4, kCvtRelu = 8, kToInteger = 16 };

// Any number to any other, through long double, which holds all of them.
long double load(Number from, const uint8_t* bytes, bool ftz) {
  uint64_t raw = 0;
  std::memcpy(&raw, bytes, size_t(bits_of(from)) / 8);
  switch (from) {
    case kF16: return unpack<F16>(uint16_t(raw));
    case kBF16: return unpack<BF16>(uint16_t(raw));
    case kF32: { const float f = bits_as<float>(uint32_t(raw)); return ftz ? flush(f) : f; }
    case kF64: return bits_as<double>(raw);
    default: break;
  }
  const int spare = 64 - bits_of(from);
  return is_signed(from) ? (long double)(int64_t(raw << spare) >> spare) : (long double)raw;
}

void store(Number from, Number to, long double value, uint8_t* bytes, uint32_t register_bytes, Rounding rounding, uint8_t option) {
  uint64_t raw;
  if (floats(to)) {
    if ((option & kCvtSat)) value = std::isnan(value) ? 0 : std::min(1.0L, std::max(0.0L, value));
    if ((option & kCvtRelu) && value < 0) value = 0;
    if (option & kToInteger) {
      value = rounding == Rounding::Nearest ? std::nearbyint(value) : rounding == Rounding::Zero ? std::trunc(value)
              : rounding == Rounding::Down ? std::floor(value) : std::ceil(value);
    }
    value = round_to(value, mantissa_of(to), exponent_of(to), rounding, option & kSatFinite);
    switch (to) {
      case kF16: raw = pack<F16>(value); break;
      case kBF16: raw = pack<BF16>(value); break;
      case kF64: raw = bits_as<uint64_t>(double(value)); break;
      default: {
        float f = std::isnan(value) ? bits_as<float>(0x7fffffffu) : float(value);
        if (option & kCvtFtz) f = flush(f);
        raw = bits_as<uint32_t>(f);
      }
    }
  } else {
    value = rounding == Rounding::Nearest ? std::nearbyint(value) : rounding == Rounding::Zero ? std::trunc(value)
            : rounding == Rounding::Down ? std::floor(value) : std::ceil(value);
    const int bits = bits_of(to);
    const long double low = is_signed(to) ? -std::ldexp(1.0L, bits - 1) : 0;
    const long double high = std::ldexp(1.0L, is_signed(to) ? bits - 1 : bits) - 1;
    if (std::isnan(value)) value = from == kF64 || bits == 64 ? (is_signed(to) ? low : std::ldexp(1.0L, bits - 1)) : 0;
    value = std::min(high, std::max(low, value));
    raw = is_signed(to) ? uint64_t(int64_t(value)) : uint64_t(value);
  }
  std::memcpy(bytes, &raw, register_bytes);
}

// o = d, a. bytes and count are those of the two registers; immediate holds the types.
Flow convert(Warp& warp, const Instruction& i, uint32_t mask) {
  const Number to = Number(i.immediate & 0xff), from = Number(i.immediate >> 8 & 0xff);
  const Rounding rounding = Rounding(i.immediate >> 16 & 0xff);
  uint8_t* d = warp.at<uint8_t>(i.o[0]);
  const uint8_t* a = warp.at<uint8_t>(i.o[1]);
  for_lanes(mask, [&](int lane) {
    store(from, to, load(from, a + lane * i.count, i.option & kCvtFtz), d + lane * i.bytes, i.bytes, rounding, i.option);
  });
  return Flow::Next;
}

// Integers without saturation: bits cut off, or filled with the sign; both types may be narrower than their registers.
Flow cut(Warp& warp, const Instruction& i, uint32_t mask) {
  const Number to = Number(i.immediate & 0xff), from = Number(i.immediate >> 8 & 0xff);
  uint8_t* d = warp.at<uint8_t>(i.o[0]);
  const uint8_t* a = warp.at<uint8_t>(i.o[1]);
  auto extended = [](uint64_t raw, Number type) {
    const int spare = 64 - bits_of(type);
    return is_signed(type) ? uint64_t(int64_t(raw << spare) >> spare) : raw << spare >> spare;
  };
  for_lanes(mask, [&](int lane) {
    uint64_t raw = 0;
    std::memcpy(&raw, a + lane * i.count, i.count);
    raw = extended(extended(raw, from), to);
    std::memcpy(d + lane * i.bytes, &raw, i.bytes);
  });
  return Flow::Next;
}
template <class To, class From> struct Cast { To operator()(From a) const { return To(a); } };

template <class Format> Flow to_pair(Warp& warp, const Instruction& i, uint32_t mask) {   // d = {high a, low b}
  uint32_t* d = warp.at<uint32_t>(i.o[0]);
  const float *a = warp.at<float>(i.o[1]), *b = warp.at<float>(i.o[2]);
  const Rounding rounding = Rounding(i.immediate);
  auto one = [&](float f) {
    if ((i.option & kCvtRelu) && f < 0) f = 0;
    if (rounding == Rounding::Nearest && !(i.option & kSatFinite)) return pack_nearest<Format>(f);
    return pack<Format>(round_to(f, Format::kMantissa, Format::kExponent, rounding, i.option & kSatFinite));
  };
  for_lanes(mask, [&](int lane) { d[lane] = uint32_t(one(a[lane])) << 16 | one(b[lane]); });
  return Flow::Next;
}
template <class Format> struct Narrow { uint16_t operator()(float a) const { return pack_nearest<Format>(a); } };
template <class Format> struct Widen { float operator()(uint16_t a) const { return unpack<Format>(a); } };
template <class To, class From> struct Exactly { To operator()(From a) const { return To(a); } };

void decode_cvt(Decoder& d) {
  d.i.kind = Class::Convert;
  const std::string from_name = d.take_type(), to_name = d.take_type();
  uint8_t option = 0;
  if (d.take("ftz")) option |= kCvtFtz;
  if (d.take("sat")) option |= kCvtSat;
  if (d.take("satfinite")) option |= kSatFinite;
  if (d.take("relu")) option |= kCvtRelu;
  const std::string mode = d.take_any({"rn", "rz", "rm", "rp", "rna", "rni", "rzi", "rmi", "rpi"});
  const char second = mode.size() > 1 ? mode[1] : 'n';
  Rounding rounding = second == 'n' ? Rounding::Nearest : second == 'z' ? Rounding::Zero : second == 'm' ? Rounding::Down : Rounding::Up;
  if (mode == "rna") rounding = Rounding::NearestAway;
  if (mode.size() == 3 && mode != "rna") option |= kToInteger;
  d.i.option = option;

  if (to_name == "bf16x2" || to_name == "f16x2") {
    if (from_name != "f32") d.fail("from ." + from_name);
    d.to(0), d.from<float>(1), d.from<float>(2);
    d.i.immediate = int64_t(rounding);
    d.i.run = to_name == "bf16x2" ? to_pair<BF16> : to_pair<F16>;
    return;
  }
  const Number to = number_of(d, to_name), from = number_of(d, from_name);
  if (!floats(to) && floats(from) && mode.empty()) rounding = Rounding::Zero;
  const bool plain_nearest = rounding == Rounding::Nearest && option == 0;

  // The common ones, each its own loop.
  if (!floats(to) && !floats(from) && !(option & kCvtSat)) {
    // A register may be wider than the type: then the result fills it, as PTX has it.
    const uint32_t wide = uint32_t(d.atom(0).kind == Atom::Register ? d.atom(0).bytes : bits_of(to) / 8);
    with_integer(from_name, [&](auto from_tag) {
      using From = typename decltype(from_tag)::type;
      auto finish = [&](auto to_tag) {
        using To = typename decltype(to_tag)::type;
        if (uint32_t(bits_of(to)) / 8 < wide || d.atom(1).bytes > int64_t(sizeof(From))) return;
        decode_lanewise<Cast<To, From>, To, From>(d, Class::Convert);
      };
      with_integer(to_name, finish);
    });
    if (d.i.run != nullptr) return;
  }
  if (plain_nearest && from == kF32 && to == kBF16) return decode_lanewise<Narrow<BF16>, uint16_t, float>(d, Class::Convert);
  if (plain_nearest && from == kF32 && to == kF16) return decode_lanewise<Narrow<F16>, uint16_t, float>(d, Class::Convert);
  if (plain_nearest && from == kBF16 && to == kF32) return decode_lanewise<Widen<BF16>, float, uint16_t>(d, Class::Convert);
  if (plain_nearest && from == kF16 && to == kF32) return decode_lanewise<Widen<F16>, float, uint16_t>(d, Class::Convert);
  if (plain_nearest && from == kS32 && to == kF32) return decode_lanewise<Exactly<float, int32_t>, float, int32_t>(d, Class::Convert);
  if (plain_nearest && from == kU32 && to == kF32) return decode_lanewise<Exactly<float, uint32_t>, float, uint32_t>(d, Class::Convert);
  if (plain_nearest && from == kF32 && to == kF64) return decode_lanewise<Exactly<double, float>, double, float>(d, Class::Convert);

  d.to(0);
  d.i.bytes = uint8_t(d.atom(0).kind == Atom::Register ? d.atom(0).bytes : bits_of(to) / 8);
  d.i.count = uint8_t(d.atom(1).kind == Atom::Register ? d.atom(1).bytes : bits_of(from) / 8);
  d.from_bytes(1, 0, d.i.count);
  if (floats(from) && floats(to) && mode.empty() && bits_of(to) >= bits_of(from)) rounding = Rounding::Nearest;   // exact
  d.i.immediate = int64_t(to) | int64_t(from) << 8 | int64_t(rounding) << 16;
  d.i.run = !floats(to) && !floats(from) && !(option & kCvtSat) ? cut : convert;
}

// Generic addresses are those of the host for global memory and windows of their own for shared and local memory.
template <int64_t kAdded> struct Shift { uint64_t operator()(uint64_t a) const { return a + uint64_t(kAdded); } };
template <int64_t kAdded> struct ShiftNarrow { uint64_t operator()(uint32_t a) const { return uint64_t(a) + uint64_t(kAdded); } };

void decode_cvta(Decoder& d) {
  const bool to = d.take("to");
  std::string space = d.take_any({"global", "shared", "shared::cta", "local", "const", "param"});
  d.take_any({"u64", "u32"});
  constexpr int64_t kShared = int64_t(kSharedWindow), kLocal = int64_t(kLocalWindow);
  if (space == "shared" || space == "shared::cta") {
    if (to) decode_lanewise<Shift<-kShared>, uint64_t, uint64_t>(d, Class::Move);
    else decode_lanewise<Shift<kShared>, uint64_t, uint64_t>(d, Class::Move);
  } else if (space == "local") {
    if (to) decode_lanewise<Shift<-kLocal>, uint64_t, uint64_t>(d, Class::Move);
    else decode_lanewise<Shift<kLocal>, uint64_t, uint64_t>(d, Class::Move);
  } else {
    decode_lanewise<Same<uint64_t>, uint64_t, uint64_t>(d, Class::Move);
  }
}

template <uint64_t kWindow> struct InWindow { uint8_t operator()(uint64_t a) const { return a - kWindow < kWindowBytes; } };
struct InGlobal { uint8_t operator()(uint64_t a) const { return a < kSharedWindow; } };
void decode_isspacep(Decoder& d) {
  const std::string space = d.take_any({"global", "shared", "shared::cta", "local"});
  if (space == "global") decode_lanewise<InGlobal, uint8_t, uint64_t>(d, Class::Integer);
  else if (space == "local") decode_lanewise<InWindow<kLocalWindow>, uint8_t, uint64_t>(d, Class::Integer);
  else decode_lanewise<InWindow<kSharedWindow>, uint8_t, uint64_t>(d, Class::Integer);
}

}  // namespace

const std::vector<Entry>& moves_table() {
  static const std::vector<Entry> table = {
      {"mov", ".{b8..b64,u16..f64,pred}", "d = a; packs and unpacks {a, b, ..}; addresses of variables", [](Decoder& d) {
         if (d.operand_count() == 2 && d.atom(1).kind == Atom::Special && d.atom(1).value == kSmid + 100) {
           d.i.bytes = uint8_t(size_of(d.take_type()));
           d.to(0), d.i.kind = Class::Move, d.i.run = read_clock;
         } else {
           decode_mov(d);
         }
       }},
      {"selp", ".{b16..f64}", "d = p ? a : b", decode_selp},
      {"slct", ".{b16..f64}.{s32,f32}", "d = c >= 0 ? a : b", decode_slct},
      {"cvt", "{.rn,rz,rm,rp,rna,rni..}{.ftz}{.sat}{.satfinite}{.relu}.to.from; .{bf16x2,f16x2}.f32", "d = a as another type", decode_cvt},
      {"cvta", "{.to}.{global,shared,local,const,param}.u64", "d = a as an address of another space", decode_cvta},
      {"isspacep", ".{global,shared,local}", "p = is a an address of that space", decode_isspacep},
  };
  return table;
}

}  // namespace ptxsim
