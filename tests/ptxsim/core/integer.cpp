// Integer arithmetic, logic and shifts. Arithmetic wraps, so it is done unsigned.
#include "lanes.h"

namespace ptxsim {
namespace {

template <class T, class Wide> struct Widened;
template <> struct Widened<uint16_t, void> { using type = uint32_t; };
template <> struct Widened<int16_t, void> { using type = int32_t; };
template <> struct Widened<uint32_t, void> { using type = uint64_t; };
template <> struct Widened<int32_t, void> { using type = int64_t; };
template <> struct Widened<uint64_t, void> { using type = unsigned __int128; };
template <> struct Widened<int64_t, void> { using type = __int128; };
template <class T> using Wide = typename Widened<T, void>::type;

template <class T> struct Add { T operator()(T a, T b) const { return T(Unsigned<T>(a) + Unsigned<T>(b)); } };
template <class T> struct Sub { T operator()(T a, T b) const { return T(Unsigned<T>(a) - Unsigned<T>(b)); } };
template <class T> struct AddSat {
  T operator()(T a, T b) const { T r; return __builtin_add_overflow(a, b, &r) ? (a < 0 ? std::numeric_limits<T>::min() : std::numeric_limits<T>::max()) : r; }
};
template <class T> struct SubSat {
  T operator()(T a, T b) const { T r; return __builtin_sub_overflow(a, b, &r) ? (a < 0 ? std::numeric_limits<T>::min() : std::numeric_limits<T>::max()) : r; }
};
template <class T> struct MulLo { T operator()(T a, T b) const { return T(uint64_t(a) * uint64_t(b)); } };
template <class T> struct MulHi { T operator()(T a, T b) const { return T((Wide<T>(a) * Wide<T>(b)) >> (8 * sizeof(T))); } };
template <class T> struct MulWide { Wide<T> operator()(T a, T b) const { return Wide<T>(a) * Wide<T>(b); } };
template <class T> struct MadLo { T operator()(T a, T b, T c) const { return T(uint64_t(a) * uint64_t(b) + uint64_t(c)); } };
template <class T> struct MadHi { T operator()(T a, T b, T c) const { return Add<T>()(MulHi<T>()(a, b), c); } };
template <class T> struct MadWide {
  using W = Wide<T>;
  W operator()(T a, T b, W c) const { return Add<W>()(W(a) * W(b), c); }
};
// Division by zero gives all ones, as the hardware's routines do; the least integer by -1 wraps.
template <class T> struct Div {
  T operator()(T a, T b) const {
    if (b == 0) return T(~T(0));
    if (std::is_signed_v<T> && b == T(-1)) return T(0 - Unsigned<T>(a));
    return T(a / b);
  }
};
template <class T> struct Rem {
  T operator()(T a, T b) const { return b == 0 ? a : std::is_signed_v<T> && b == T(-1) ? T(0) : T(a % b); }
};
template <class T> struct Min { T operator()(T a, T b) const { return a < b ? a : b; } };
template <class T> struct Max { T operator()(T a, T b) const { return a > b ? a : b; } };
template <class T> struct Neg { T operator()(T a) const { return T(0 - Unsigned<T>(a)); } };
template <class T> struct Abs { T operator()(T a) const { return a < 0 ? T(0 - Unsigned<T>(a)) : a; } };
template <class T> struct Sad { T operator()(T a, T b, T c) const { return Add<T>()(c, a < b ? Sub<T>()(b, a) : Sub<T>()(a, b)); } };
template <class T> struct And { T operator()(T a, T b) const { return T(a & b); } };
template <class T> struct Or { T operator()(T a, T b) const { return T(a | b); } };
template <class T> struct Xor { T operator()(T a, T b) const { return T(a ^ b); } };
template <class T> struct Not { T operator()(T a) const { return T(~a); } };
struct NotPredicate { uint8_t operator()(uint8_t a) const { return a ^ 1; } };
template <class T> struct Cnot { T operator()(T a) const { return a == 0; } };
template <class T> struct Shl { T operator()(T a, uint32_t b) const { return b >= 8 * sizeof(T) ? T(0) : T(a << b); } };
template <class T> struct Shr {
  T operator()(T a, uint32_t b) const {
    const uint32_t most = 8 * sizeof(T) - 1;
    if (std::is_signed_v<T>) return T(a >> (b < most ? b : most));
    return b > most ? T(0) : T(a >> b);
  }
};
template <bool kLeft, bool kClamp> struct Funnel {
  uint32_t operator()(uint32_t low, uint32_t high, uint32_t c) const {
    const uint32_t n = kClamp ? (c < 32 ? c : 32) : c & 31;
    const uint64_t both = uint64_t(high) << 32 | low;
    return kLeft ? uint32_t(n == 32 ? low : (both << n) >> 32) : uint32_t(n == 32 ? high : both >> n);
  }
};
template <class T> struct Popc { uint32_t operator()(T a) const { return uint32_t(__builtin_popcountll(a)); } };
template <class T> struct Clz {
  uint32_t operator()(T a) const { return a == 0 ? 8 * sizeof(T) : uint32_t(__builtin_clzll(uint64_t(a)) - (64 - 8 * int(sizeof(T)))); }
};
template <class T, bool kShift> struct Bfind {
  uint32_t operator()(T a) const {
    Unsigned<T> bits = Unsigned<T>(a);
    if (std::is_signed_v<T> && a < 0) bits = Unsigned<T>(~bits);
    if (bits == 0) return ~0u;
    const uint32_t place = 63 - uint32_t(__builtin_clzll(uint64_t(bits)));
    return kShift ? uint32_t(8 * sizeof(T) - 1 - place) : place;
  }
};
template <class T> struct Brev {
  T operator()(T a) const {
    T r = 0;
    for (size_t bit = 0; bit < 8 * sizeof(T); bit++) r |= T((a >> bit & 1) << (8 * sizeof(T) - 1 - bit));
    return r;
  }
};
template <class T> struct Bfe {
  T operator()(T a, uint32_t b, uint32_t c) const {
    const uint32_t msb = 8 * sizeof(T) - 1, pos = b & 0xff, len = c & 0xff;
    const bool sign = std::is_signed_v<T> && len != 0 && (Unsigned<T>(a) >> std::min(pos + len - 1, msb) & 1);
    Unsigned<T> r = pos > msb ? 0 : Unsigned<T>(a) >> pos;
    const uint32_t from = pos > msb ? 0 : msb - pos + 1;   // bits of `a` that are there
    const uint32_t keep = std::min(len, from);
    if (keep <= msb) r &= (Unsigned<T>(1) << keep) - 1;
    if (sign && keep <= msb) r |= ~((Unsigned<T>(1) << keep) - 1);
    return T(r);
  }
};
template <class T> struct Bfi {
  T operator()(T a, T b, uint32_t c, uint32_t d) const {
    const uint32_t msb = 8 * sizeof(T) - 1, pos = c & 0xff, len = d & 0xff;
    if (pos > msb || len == 0) return b;
    const uint32_t n = std::min(len, msb + 1 - pos);
    const T field = T((n > msb ? ~T(0) : (T(1) << n) - 1) << pos);
    return T((b & ~field) | (T(a << pos) & field));
  }
};
struct Lop3 {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c, uint32_t table) const {
    uint32_t r = 0;
    for (int entry = 0; entry < 8; entry++)
      if (table >> entry & 1) r |= (entry & 4 ? a : ~a) & (entry & 2 ? b : ~b) & (entry & 1 ? c : ~c);
    return r;
  }
};
uint32_t byte_of(uint64_t bytes, uint32_t selector) {
  const uint32_t byte = uint32_t(bytes >> (8 * (selector & 7))) & 0xff;
  return selector & 8 ? (byte & 0x80 ? 0xff : 0) : byte;
}
struct Prmt {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
    const uint64_t bytes = uint64_t(b) << 32 | a;
    uint32_t r = 0;
    for (int k = 0; k < 4; k++) r |= byte_of(bytes, c >> (4 * k)) << (8 * k);
    return r;
  }
};
template <bool kSignedA, bool kSignedB> struct Dp4a {
  int32_t operator()(uint32_t a, uint32_t b, int32_t c) const {
    for (int k = 0; k < 4; k++) {
      const uint8_t x = uint8_t(a >> (8 * k)), y = uint8_t(b >> (8 * k));
      c = int32_t(uint32_t(c) + uint32_t((kSignedA ? int8_t(x) : int32_t(x)) * (kSignedB ? int8_t(y) : int32_t(y))));
    }
    return c;
  }
};

template <bool kSignedA, bool kSignedB, int kFirst> struct Dp2a {
  int32_t operator()(uint32_t a, uint32_t b, int32_t c) const {
    for (int k = 0; k < 2; k++) {
      const uint16_t x = uint16_t(a >> (16 * k));
      const uint8_t y = uint8_t(b >> (8 * (kFirst + k)));
      c = int32_t(uint32_t(c) + uint32_t((kSignedA ? int16_t(x) : int32_t(x)) * (kSignedB ? int8_t(y) : int32_t(y))));
    }
    return c;
  }
};

// ---- carries: .cc writes the lane's condition code, addc, subc and madc read it

enum CarryKind : uint8_t { kAddCarry, kSubCarry, kMadLo, kMadHi };
enum : uint8_t { kReads = 16, kWrites = 32, kSigned = 64 };

template <class T> Flow with_carry(Warp& warp, const Instruction& i, uint32_t mask) {
  T* d = warp.at<T>(i.o[0]);
  const T *a = warp.at<T>(i.o[1]), *b = warp.at<T>(i.o[2]), *c = i.o.size() > 3 ? warp.at<T>(i.o[3]) : nullptr;
  for_lanes(mask, [&](int lane) {
    T x = a[lane], y = b[lane];
    const int kind = i.option & 15;
    if (kind == kMadLo) x = T(x * y), y = c[lane];
    if (kind == kMadHi) x = i.option & kSigned ? T(MulHi<std::make_signed_t<T>>()(x, y)) : MulHi<T>()(x, y), y = c[lane];
    const unsigned __int128 carry = i.option & kReads ? warp.carry[lane] : 0;
    const unsigned __int128 sum = kind == kSubCarry ? (unsigned __int128)x - y - carry : (unsigned __int128)x + y + carry;
    d[lane] = T(sum);
    if (i.option & kWrites) warp.carry[lane] = uint8_t(sum >> (8 * sizeof(T)) & 1);
  });
  return Flow::Next;
}

void decode_carry(Decoder& d, uint8_t kind, bool reads) {
  const bool writes = d.take("cc");
  const std::string type = d.take_type();
  const size_t sources = kind >= kMadLo ? 3 : 2;
  if (!with_integer(type, [&](auto tag) {
        using T = Unsigned<typename decltype(tag)::type>;
        if constexpr (sizeof(T) >= 4) {
          d.to(0);
          for (size_t s = 1; s <= sources; s++) d.from<T>(s);
          d.i.option = uint8_t(kind | (reads ? kReads : 0) | (writes ? kWrites : 0) | (type[0] == 's' ? kSigned : 0));
          d.i.run = with_carry<T>;
        }
      }))
    d.fail("type ." + type);
}

// ---- decoding

template <template <class> class F> void binary(Decoder& d, const std::string& type) {
  if (!with_integer(type, [&](auto tag) {
        using T = typename decltype(tag)::type;
        if constexpr (sizeof(T) >= 2) decode_lanewise<F<T>, T, T, T>(d, Class::Integer);
      }))
    d.fail("type ." + type);
}
template <template <class> class F> void unary(Decoder& d, const std::string& type) {
  if (!with_integer(type, [&](auto tag) {
        using T = typename decltype(tag)::type;
        if constexpr (sizeof(T) >= 2) decode_lanewise<F<T>, T, T>(d, Class::Integer);
      }))
    d.fail("type ." + type);
}
template <template <class> class F> void logic(Decoder& d) {
  const std::string type = d.take_type();
  if (type == "pred") return decode_lanewise<F<uint8_t>, uint8_t, uint8_t, uint8_t>(d, Class::Integer);
  binary<F>(d, type);
}
template <template <class> class F> void shift(Decoder& d) {
  const std::string type = d.take_type();
  if (!with_integer(type, [&](auto tag) {
        using T = typename decltype(tag)::type;
        if constexpr (sizeof(T) >= 2) decode_lanewise<F<T>, T, T, uint32_t>(d, Class::Integer);
      }))
    d.fail("type ." + type);
}
template <template <class> class F> void counting(Decoder& d) {
  const std::string type = d.take_type();
  with_integer(type, [&](auto tag) {
    using T = Unsigned<typename decltype(tag)::type>;
    if constexpr (sizeof(T) >= 4) decode_lanewise<F<T>, uint32_t, T>(d, Class::Integer);
  });
}

}  // namespace

void decode_float_arithmetic(Decoder& d, const std::string& type);   // floating.cpp

namespace {

template <template <class> class F, template <class> class Saturating> void sum(Decoder& d, uint8_t carry) {
  const std::string type = d.take_type();
  if (is_float_type(type)) return decode_float_arithmetic(d, type);
  if (d.take("cc")) {
    d.i.option = 0;
    if (!with_integer(type, [&](auto tag) {
          using T = Unsigned<typename decltype(tag)::type>;
          if constexpr (sizeof(T) >= 4) {
            d.to(0), d.from<T>(1), d.from<T>(2);
            d.i.option = uint8_t(carry | kWrites);
            d.i.run = with_carry<T>;
          }
        }))
      d.fail("type ." + type);
    return;
  }
  if (d.take("sat")) {
    if (type != "s32") d.fail(".sat of ." + type);
    return decode_lanewise<Saturating<int32_t>, int32_t, int32_t, int32_t>(d, Class::Integer);
  }
  binary<F>(d, type);
}

void decode_mul(Decoder& d) {
  const std::string type = d.take_type();
  if (is_float_type(type)) return decode_float_arithmetic(d, type);
  const std::string part = d.take_any({"lo", "hi", "wide"});
  if (!with_integer(type, [&](auto tag) {
        using T = typename decltype(tag)::type;
        if constexpr (sizeof(T) >= 2) {
          if (part == "lo") decode_lanewise<MulLo<T>, T, T, T>(d, Class::Integer);
          if (part == "hi") decode_lanewise<MulHi<T>, T, T, T>(d, Class::Integer);
          if constexpr (sizeof(T) < 8)
            if (part == "wide") decode_lanewise<MulWide<T>, Wide<T>, T, T>(d, Class::Integer);
        }
      }))
    d.fail("type ." + type);
}

void decode_mad(Decoder& d) {
  const std::string type = d.take_type();
  if (is_float_type(type)) return decode_float_arithmetic(d, type);
  const std::string part = d.take_any({"lo", "hi", "wide"});
  if (d.take("cc")) {
    with_integer(type, [&](auto tag) {
      using T = Unsigned<typename decltype(tag)::type>;
      if constexpr (sizeof(T) >= 4) {
        d.to(0), d.from<T>(1), d.from<T>(2), d.from<T>(3);
        d.i.option = uint8_t((part == "hi" ? kMadHi : kMadLo) | kWrites | (type[0] == 's' ? kSigned : 0));
        d.i.run = with_carry<T>;
      }
    });
    return;
  }
  if (!with_integer(type, [&](auto tag) {
        using T = typename decltype(tag)::type;
        if constexpr (sizeof(T) >= 2) {
          if (part == "lo") decode_lanewise<MadLo<T>, T, T, T, T>(d, Class::Integer);
          if (part == "hi") decode_lanewise<MadHi<T>, T, T, T, T>(d, Class::Integer);
          if constexpr (sizeof(T) < 8)
            if (part == "wide") decode_lanewise<MadWide<T>, Wide<T>, T, T, Wide<T>>(d, Class::Integer);
        }
      }))
    d.fail("type ." + type);
}

void decode_madc(Decoder& d) {
  const std::string part = d.take_any({"lo", "hi"});
  decode_carry(d, part == "hi" ? kMadHi : kMadLo, true);
}

template <template <class> class F> void whole(Decoder& d) {   // of integers here, of floats there
  const std::string type = d.take_type();
  if (is_float_type(type)) return decode_float_arithmetic(d, type);
  binary<F>(d, type);
}
template <template <class> class F> void whole_unary(Decoder& d) {
  const std::string type = d.take_type();
  if (is_float_type(type)) return decode_float_arithmetic(d, type);
  unary<F>(d, type);
}

void decode_not(Decoder& d) {
  const std::string type = d.take_type();
  if (type == "pred") return decode_lanewise<NotPredicate, uint8_t, uint8_t>(d, Class::Integer);
  unary<Not>(d, type);
}

void decode_sad(Decoder& d) {
  with_integer(d.take_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (sizeof(T) >= 2) decode_lanewise<Sad<T>, T, T, T, T>(d, Class::Integer);
  });
}

void decode_shf(Decoder& d) {
  const bool left = d.take("l");
  if (!left) d.take("r");
  const bool clamp = d.take("clamp");
  if (!clamp) d.take("wrap");
  d.take_type();
  if (left && clamp) decode_lanewise<Funnel<true, true>, uint32_t, uint32_t, uint32_t, uint32_t>(d, Class::Integer);
  else if (left) decode_lanewise<Funnel<true, false>, uint32_t, uint32_t, uint32_t, uint32_t>(d, Class::Integer);
  else if (clamp) decode_lanewise<Funnel<false, true>, uint32_t, uint32_t, uint32_t, uint32_t>(d, Class::Integer);
  else decode_lanewise<Funnel<false, false>, uint32_t, uint32_t, uint32_t, uint32_t>(d, Class::Integer);
}

void decode_bfind(Decoder& d) {
  const bool shift = d.take("shiftamt");
  with_integer(d.take_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (sizeof(T) >= 4) {
      if (shift) decode_lanewise<Bfind<T, true>, uint32_t, T>(d, Class::Integer);
      else decode_lanewise<Bfind<T, false>, uint32_t, T>(d, Class::Integer);
    }
  });
}

void decode_bfe(Decoder& d) {
  with_integer(d.take_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (sizeof(T) >= 4) decode_lanewise<Bfe<T>, T, T, uint32_t, uint32_t>(d, Class::Integer);
  });
}
void decode_bfi(Decoder& d) {
  with_integer(d.take_type(), [&](auto tag) {
    using T = Unsigned<typename decltype(tag)::type>;
    if constexpr (sizeof(T) >= 4) decode_lanewise<Bfi<T>, T, T, T, uint32_t, uint32_t>(d, Class::Integer);
  });
}
void decode_lop3(Decoder& d) {
  d.take_type();
  decode_lanewise<Lop3, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t>(d, Class::Integer);
}
void decode_prmt(Decoder& d) {
  d.take_type();
  decode_lanewise<Prmt, uint32_t, uint32_t, uint32_t, uint32_t>(d, Class::Integer);
}
void decode_dp4a(Decoder& d) {
  const bool b = d.take_type() == "s32", a = d.take_type() == "s32";
  if (a && b) decode_lanewise<Dp4a<true, true>, int32_t, uint32_t, uint32_t, int32_t>(d, Class::Integer);
  else if (a) decode_lanewise<Dp4a<true, false>, int32_t, uint32_t, uint32_t, int32_t>(d, Class::Integer);
  else if (b) decode_lanewise<Dp4a<false, true>, int32_t, uint32_t, uint32_t, int32_t>(d, Class::Integer);
  else decode_lanewise<Dp4a<false, false>, int32_t, uint32_t, uint32_t, int32_t>(d, Class::Integer);
}
template <int kFirst>
void decode_dp2a_of(Decoder& d, bool a, bool b) {
  if (a && b) decode_lanewise<Dp2a<true, true, kFirst>, int32_t, uint32_t, uint32_t, int32_t>(d, Class::Integer);
  else if (a) decode_lanewise<Dp2a<true, false, kFirst>, int32_t, uint32_t, uint32_t, int32_t>(d, Class::Integer);
  else if (b) decode_lanewise<Dp2a<false, true, kFirst>, int32_t, uint32_t, uint32_t, int32_t>(d, Class::Integer);
  else decode_lanewise<Dp2a<false, false, kFirst>, int32_t, uint32_t, uint32_t, int32_t>(d, Class::Integer);
}
void decode_dp2a(Decoder& d) {
  const bool b = d.take_type() == "s32", a = d.take_type() == "s32";
  d.take_any({"lo", "hi"}) == "lo" ? decode_dp2a_of<0>(d, a, b) : decode_dp2a_of<2>(d, a, b);
}

}  // namespace

const std::vector<Entry>& integer_table() {
  static const std::vector<Entry> table = {
      {"add", "{.sat}{.cc}.{u16..s64}; floats", "d = a + b", [](Decoder& d) { sum<Add, AddSat>(d, kAddCarry); }},
      {"sub", "{.sat}{.cc}.{u16..s64}; floats", "d = a - b", [](Decoder& d) { sum<Sub, SubSat>(d, kSubCarry); }},
      {"addc", "{.cc}.{u32..s64}", "d = a + b + carry", [](Decoder& d) { decode_carry(d, kAddCarry, true); }},
      {"subc", "{.cc}.{u32..s64}", "d = a - b - borrow", [](Decoder& d) { decode_carry(d, kSubCarry, true); }},
      {"mul", ".{lo,hi,wide}.{u16..s64}; floats", "d = a * b, or half of it, or all of it", decode_mul},
      {"mad", ".{lo,hi,wide}{.cc}.{u16..s64}; floats", "d = a * b + c", decode_mad},
      {"madc", ".{lo,hi}{.cc}.{u32..s64}", "d = a * b + c + carry", decode_madc},
      {"sad", ".{u16..s64}", "d = c + |a - b|", decode_sad},
      {"div", ".{u16..s64}; floats", "d = a / b; all ones by zero", whole<Div>},
      {"rem", ".{u16..s64}", "d = a % b", [](Decoder& d) { binary<Rem>(d, d.take_type()); }},
      {"abs", ".{s16..s64}; floats", "d = |a|", whole_unary<Abs>},
      {"neg", ".{s16..s64}; floats", "d = -a", whole_unary<Neg>},
      {"min", ".{u16..s64}; floats", "d = min(a, b)", whole<Min>},
      {"max", ".{u16..s64}; floats", "d = max(a, b)", whole<Max>},
      {"and", ".{b16..b64,pred}", "d = a & b", logic<And>},
      {"or", ".{b16..b64,pred}", "d = a | b", logic<Or>},
      {"xor", ".{b16..b64,pred}", "d = a ^ b", logic<Xor>},
      {"not", ".{b16..b64,pred}", "d = ~a", decode_not},
      {"cnot", ".{b16..b64}", "d = a == 0", [](Decoder& d) { unary<Cnot>(d, d.take_type()); }},
      {"shl", ".{b16..b64}", "d = a << b, 0 from the width on", shift<Shl>},
      {"shr", ".{u16..s64}", "d = a >> b, sign or 0 from the width on", shift<Shr>},
      {"shf", ".{l,r}.{wrap,clamp}.b32", "d = 32 bits of b:a, shifted by c", decode_shf},
      {"popc", ".{b32,b64}", "d = number of ones", counting<Popc>},
      {"clz", ".{b32,b64}", "d = number of leading zeros", counting<Clz>},
      {"bfind", "{.shiftamt}.{u32..s64}", "d = place of the leading bit that is not a sign", decode_bfind},
      {"brev", ".{b32,b64}", "d = bits of a in reverse", [](Decoder& d) {
         with_integer(d.take_type(), [&](auto tag) {
           using T = Unsigned<typename decltype(tag)::type>;
           if constexpr (sizeof(T) >= 4) decode_lanewise<Brev<T>, T, T>(d, Class::Integer);
         });
       }},
      {"bfe", ".{u32..s64}", "d = c bits of a from bit b", decode_bfe},
      {"bfi", ".{b32,b64}", "d = b with a's bits at c, d of them", decode_bfi},
      {"lop3", ".b32", "d = the logic function of a, b, c whose truth table is given", decode_lop3},
      {"prmt", ".b32", "d = four bytes of b:a, chosen by c", decode_prmt},
      {"dp2a", ".{lo,hi}.{u32,s32}.{u32,s32}", "d = c + sum of products of two halves and two bytes", decode_dp2a},
      {"dp4a", ".{u32,s32}.{u32,s32}", "d = c + sum of products of four bytes", decode_dp4a},
  };
  return table;
}

}  // namespace ptxsim
