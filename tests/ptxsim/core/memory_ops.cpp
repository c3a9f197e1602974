// Loads, stores, atomics and asynchronous copies.
#include <mutex>

#include "formats.h"
#include "lanes.h"

namespace ptxsim {
namespace {

// Bits of `option`: whether the base register has 4 bytes, whether the access is strong, and from kSemantics on its Semantics.
enum : uint8_t { kNarrowBase = 1, kStrong = 2, kSemantics = 4 };

Access access_of(const Instruction& i, bool reads, bool writes) {
  return Access{reads, writes, (i.option & kStrong) != 0, false, Semantics(i.option / kSemantics)};
}

void addresses(Warp& warp, const Instruction& i, uint32_t mask, size_t operand, uint64_t* at) {
  if (i.option & kNarrowBase) {
    const uint32_t* base = warp.at<uint32_t>(i.o[operand]);
    for_lanes(mask, [&](int lane) { at[lane] = uint32_t(base[lane] + uint32_t(i.immediate)); });
  } else {
    const uint64_t* base = warp.at<uint64_t>(i.o[operand]);
    for_lanes(mask, [&](int lane) { at[lane] = base[lane] + uint64_t(i.immediate); });
  }
}

// The lanes of `mask` whose generic address is of each space, which is taken off the address.
struct Parts { uint32_t global = 0, shared = 0, local = 0; };
Parts parts_of(Space space, uint32_t mask, uint64_t* at) {
  Parts parts;
  if (space == Space::Global || space == Space::Const) parts.global = mask;
  else if (space == Space::Shared) parts.shared = mask;
  else if (space == Space::Local) parts.local = mask;
  else
    for_lanes(mask, [&](int lane) {
      if (at[lane] - kSharedWindow < kWindowBytes) at[lane] -= kSharedWindow, parts.shared |= 1u << lane;
      else if (at[lane] - kLocalWindow < kWindowBytes) at[lane] -= kLocalWindow, parts.local |= 1u << lane;
      else parts.global |= 1u << lane;
    });
  return parts;
}

uint32_t check_local(Warp& warp, const Instruction& i, uint32_t mask, const uint64_t* at, uint32_t bytes) {
  const uint64_t limit = uint64_t(warp.block->program().local_bytes);
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    const bool misaligned = at[lane] % std::min(bytes, 16u) != 0;
    if (!misaligned && at[lane] + bytes <= limit) continue;
    warp.block->machine->findings.add(misaligned ? "misaligned access" : "out of bounds", i.place, -1,
                                      "address " + std::to_string(at[lane]) + " of " + std::to_string(limit) + " bytes of local memory");
    mask &= ~(1u << lane);
  }
  return mask;
}

// Where the bytes of each lane are, after all checks; lanes that failed are left out of the mask.
uint32_t locate(Warp& warp, const Instruction& i, uint32_t mask, Space space, uint64_t* at, uint32_t bytes, Access access,
                const uint8_t* values, uint8_t** where) {
  Machine& machine = *warp.block->machine;
  Parts parts = parts_of(space, mask, at);
  if (parts.global) {
    parts.global = check_global(warp, i, parts.global, at, bytes, access);
    for_lanes(parts.global, [&](int lane) { where[lane] = reinterpret_cast<uint8_t*>(at[lane]); });
  }
  if (parts.shared) {
    uint32_t narrow[kLanes];
    for_lanes(parts.shared, [&](int lane) { narrow[lane] = uint32_t(std::min<uint64_t>(at[lane], 0xfffffff0u)); });
    parts.shared = check_shared(warp, i, parts.shared, narrow, bytes, access, values);
    for_lanes(parts.shared, [&](int lane) { where[lane] = machine.shared.data() + narrow[lane]; });
  }
  if (parts.local) {
    parts.local = check_local(warp, i, parts.local, at, bytes);
    for_lanes(parts.local, [&](int lane) { where[lane] = warp.local.data() + size_t(lane) * warp.local.size() / kLanes + at[lane]; });
  }
  return parts.global | parts.shared | parts.local;
}

// What host threads must do one at a time: a strong access, whose value and clock (strong_access) belong together.
std::mutex strong_accesses;

std::unique_lock<std::mutex> alone_if_strong(const Instruction& i) {
  return i.option & kStrong ? std::unique_lock(strong_accesses) : std::unique_lock<std::mutex>();
}

// ---- ld, st

template <Space kSpace> Flow load(Warp& warp, const Instruction& i, uint32_t mask) {
  uint64_t at[kLanes];
  uint8_t* where[kLanes];
  addresses(warp, i, mask, i.count, at);
  const uint32_t bytes = uint32_t(i.bytes) * i.count;
  const auto alone = alone_if_strong(i);
  const uint32_t found = locate(warp, i, mask, kSpace, at, bytes, access_of(i, true, false), nullptr, where);
  if (kSpace == Space::Global) {
    warp.last_arrival = warp.clock + 1;
    for (int part = 0; part < i.count; part++) warp.arrivals[i.o[part] / kLanes] = warp.last_arrival;
  }
  for (int part = 0; part < i.count; part++) {
    uint8_t* d = warp.at<uint8_t>(i.o[part]);
    const int wide = i.target;   // bytes of the register, which may be wider than what is loaded
    for_lanes(found, [&](int lane) {
      const uint8_t* from = where[lane] + part * i.bytes;
      if (wide == i.bytes) {
        std::memcpy(d + lane * wide, from, i.bytes);
      } else {
        int64_t value = 0;
        std::memcpy(&value, from, i.bytes);
        if (i.join == 1) value = value << (64 - 8 * i.bytes) >> (64 - 8 * i.bytes);   // a signed type
        std::memcpy(d + lane * wide, &value, wide);
      }
    });
    for_lanes(mask & ~found, [&](int lane) { std::memset(d + lane * wide, 0xff, wide); });
  }
  return Flow::Next;
}

template <Space kSpace> Flow store(Warp& warp, const Instruction& i, uint32_t mask) {
  uint64_t at[kLanes];
  uint8_t* where[kLanes];
  addresses(warp, i, mask, 0, at);
  const uint32_t bytes = uint32_t(i.bytes) * i.count;
  uint8_t values[kLanes * 32];
  const int wide = i.target;
  for (int part = 0; part < i.count; part++) {
    const uint8_t* from = warp.at<uint8_t>(i.o[part + 1]);
    for_lanes(mask, [&](int lane) { std::memcpy(values + lane * bytes + part * i.bytes, from + lane * wide, i.bytes); });
  }
  const auto alone = alone_if_strong(i);
  const uint32_t found = locate(warp, i, mask, kSpace, at, bytes, access_of(i, false, true), values, where);
  if (warp.block->machine->launch->check && kSpace != Space::Shared && kSpace != Space::Local) {
    // Lanes that write other bytes to one address in one instruction: which of them stays is open.
    for (uint32_t rest = found; rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      for (uint32_t others = rest & (rest - 1); others; others &= others - 1) {
        const int other = __builtin_ctz(others);
        if (where[lane] == where[other] && std::memcmp(values + lane * bytes, values + other * bytes, bytes) != 0) {
          warp.block->machine->findings.add("global race: write after write", i.place, i.place,
                                            "lanes " + std::to_string(lane) + " and " + std::to_string(other) + " of warp " +
                                                std::to_string(warp.index) + " of block " + std::to_string(warp.block->index) +
                                                " in one instruction");
          break;
        }
      }
    }
  }
  for_lanes(found, [&](int lane) { std::memcpy(where[lane], values + lane * bytes, bytes); });
  return Flow::Next;
}

// Parameters of the kernel: the same for all lanes.
Flow load_param(Warp& warp, const Instruction& i, uint32_t mask) {
  const uint8_t* params = warp.block->machine->launch->params + i.immediate;
  for (int part = 0; part < i.count; part++) {
    uint8_t* d = warp.at<uint8_t>(i.o[part]);
    int64_t value = 0;
    std::memcpy(&value, params + part * i.bytes, i.bytes);
    if (i.join == 1) value = value << (64 - 8 * i.bytes) >> (64 - 8 * i.bytes);
    for_lanes(mask, [&](int lane) { std::memcpy(d + lane * i.target, &value, i.target); });
  }
  return Flow::Next;
}
// Any other place of the parameters: a struct that the kernel indexes.
Flow load_param_at(Warp& warp, const Instruction& i, uint32_t mask) {
  uint64_t at[kLanes];
  addresses(warp, i, mask, i.count, at);
  const LaunchParams& launch = *warp.block->machine->launch;
  const uint64_t limit = uint64_t(warp.block->program().param_bytes);
  for (int part = 0; part < i.count; part++) {
    uint8_t* d = warp.at<uint8_t>(i.o[part]);
    for_lanes(mask, [&](int lane) {
      const uint64_t place = at[lane] + uint64_t(part) * i.bytes;
      if (place + i.bytes > limit) {
        warp.block->machine->findings.add("out of bounds", i.place, -1, "byte " + std::to_string(place) + " of the parameters");
        return;
      }
      std::memset(d + lane * i.target, 0, i.target);
      std::memcpy(d + lane * i.target, launch.params + place, i.bytes);
    });
  }
  return Flow::Next;
}

void take_semantics(Decoder& d) {
  d.take("weak");
  const std::string semantics = d.take_any({"relaxed", "acquire", "release", "acq_rel", "volatile", "mmio"});
  d.take_any({"cta", "gpu", "sys", "cluster"});
  if (!semantics.empty()) d.i.option |= kStrong;
  const Semantics which = semantics == "acquire"   ? Semantics::Acquire
                          : semantics == "release" ? Semantics::Release
                          : semantics == "acq_rel" ? Semantics::AcquireRelease
                                                   : Semantics::Relaxed;
  d.i.option |= uint8_t(uint8_t(which) * kSemantics);
}

// Modifiers of an access that change neither its value nor what is counted.
void take_hints(Decoder& d) {
  d.take_any({"ca", "cg", "cs", "lu", "cv", "wb", "wt"});
  d.take_any({"L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last", "L1::no_allocate"});
  d.take_any({"L2::evict_last", "L2::evict_first", "L2::evict_normal"});
  d.take("L2::cache_hint");
  d.take_any({"L2::64B", "L2::128B", "L2::256B"});
  d.take("nc"), d.take("unified");
}

Space take_space(Decoder& d) {
  if (d.take("global")) return Space::Global;
  if (d.take("shared") || d.take("shared::cta")) return Space::Shared;
  if (d.take("local")) return Space::Local;
  if (d.take("const")) return Space::Const;
  if (d.take("param") || d.take("param::entry") || d.take("param::func")) return Space::Param;
  return Space::Generic;
}

int element_bytes(const std::string& type) {
  if (type == "f16x2" || type == "bf16x2") return 4;
  return std::stoi(type.substr(type.find_first_of("0123456789"))) / 8;
}

uint8_t take_count(Decoder& d) { return d.take("v2") ? 2 : d.take("v4") ? 4 : d.take("v8") ? 8 : 1; }

void take_address(Decoder& d, size_t operand) {
  d.address(operand);
  const Atom& base = d.atom(operand);
  if (base.kind == Atom::Register && base.bytes == 4) d.i.option |= kNarrowBase;
}

void decode_ld(Decoder& d) {
  const std::string type = d.take_type();
  take_semantics(d);
  const Space space = take_space(d);
  take_hints(d);
  Instruction& i = d.i;
  i.kind = Class::Memory;
  i.bytes = uint8_t(element_bytes(type));
  i.count = take_count(d);
  i.join = type[0] == 's';
  i.target = i.bytes;
  for (size_t part = 0; part < i.count; part++) {
    d.to(0, part);
    if (d.atom(0, part).kind == Atom::Register) i.target = int32_t(d.atom(0, part).bytes);
  }
  const Atom::Kind base = d.atom(1).kind;
  if (space == Space::Param && base == Atom::Parameter) {
    i.immediate = d.atom(1).value + d.atom(1).offset;
    i.run = load_param;
    return;
  }
  take_address(d, 1);
  switch (space) {
    case Space::Global: i.run = load<Space::Global>; break;
    case Space::Shared: i.run = load<Space::Shared>; break;
    case Space::Local: i.run = load<Space::Local>; break;
    case Space::Const: i.run = load<Space::Const>; break;
    case Space::Param: i.run = base == Atom::Integer ? load<Space::Local> : load_param_at; break;   // those of a function are local
    default: i.run = load<Space::Generic>;
  }
}

void decode_st(Decoder& d) {
  const std::string type = d.take_type();
  take_semantics(d);
  const Space space = take_space(d);
  take_hints(d);
  Instruction& i = d.i;
  i.kind = Class::Memory;
  i.bytes = uint8_t(element_bytes(type));
  i.count = take_count(d);
  i.target = i.bytes;
  take_address(d, 0);
  for (size_t part = 0; part < i.count; part++) {
    if (d.atom(1, part).kind == Atom::Register) i.target = int32_t(d.atom(1, part).bytes);
  }
  for (size_t part = 0; part < i.count; part++) d.from_bytes(1, part, uint32_t(i.target));
  switch (space) {
    case Space::Global: i.run = store<Space::Global>; break;
    case Space::Shared: i.run = store<Space::Shared>; break;
    case Space::Param:
    case Space::Local: i.run = store<Space::Local>; break;
    case Space::Generic: i.run = store<Space::Generic>; break;
    default: d.fail("it stores to no such space");
  }
}

// ---- atomics: atom d, [a], b{, c} and red [a], b

struct AtomicAdd { template <class T> T operator()(T old, T b, T) const { return T(old + b); } };
struct AtomicMin { template <class T> T operator()(T old, T b, T) const { return b < old ? b : old; } };
struct AtomicMax { template <class T> T operator()(T old, T b, T) const { return b > old ? b : old; } };
struct AtomicExch { template <class T> T operator()(T, T b, T) const { return b; } };
struct AtomicCas { template <class T> T operator()(T old, T b, T c) const { return old == b ? c : old; } };
struct AtomicInc { template <class T> T operator()(T old, T b, T) const { return old >= b ? T(0) : T(old + 1); } };
struct AtomicDec { template <class T> T operator()(T old, T b, T) const { return old == 0 || old > b ? b : T(old - 1); } };
struct AtomicAnd { template <class T> T operator()(T old, T b, T) const { return T(old & b); } };
struct AtomicOr { template <class T> T operator()(T old, T b, T) const { return T(old | b); } };
struct AtomicXor { template <class T> T operator()(T old, T b, T) const { return T(old ^ b); } };
template <class Format> struct AtomicAddHalf {
  uint16_t operator()(uint16_t old, uint16_t b, uint16_t) const { return pack_nearest<Format>(unpack<Format>(old) + unpack<Format>(b)); }
};
template <class Format> struct AtomicAddPair {
  uint32_t operator()(uint32_t old, uint32_t b, uint32_t) const {
    const AtomicAddHalf<Format> add;
    return uint32_t(add(uint16_t(old >> 16), uint16_t(b >> 16), 0)) << 16 | add(uint16_t(old), uint16_t(b), 0);
  }
};

// o = d, address, b, c
template <class F, class T, Space kSpace> Flow atomic(Warp& warp, const Instruction& i, uint32_t mask) {
  uint64_t at[kLanes];
  uint8_t* where[kLanes];
  addresses(warp, i, mask, 1, at);
  const std::lock_guard alone(strong_accesses);
  const uint32_t found = locate(warp, i, mask, kSpace, at, sizeof(T), access_of(i, true, true), nullptr, where);
  T* d = warp.at<T>(i.o[0]);
  const T *b = warp.at<T>(i.o[2]), *c = warp.at<T>(i.o[3]);
  for_lanes(found, [&](int lane) {
    T old;
    std::memcpy(&old, where[lane], sizeof old);
    const T fresh = F()(old, b[lane], c[lane]);
    std::memcpy(where[lane], &fresh, sizeof fresh);
    d[lane] = old;
  });
  return Flow::Next;
}

template <class F, class T> void set_atomic(Decoder& d, Space space) {
  d.i.run = space == Space::Global   ? atomic<F, T, Space::Global>
            : space == Space::Shared ? atomic<F, T, Space::Shared>
                                     : atomic<F, T, Space::Generic>;
}

void decode_atomic(Decoder& d, bool returns) {
  const std::string type = d.take_type();
  d.take("noftz");
  take_semantics(d);
  d.i.option |= kStrong;
  const Space space = take_space(d);
  const std::string op = d.take_any({"add", "min", "max", "exch", "cas", "inc", "dec", "and", "or", "xor"});
  take_hints(d);
  Instruction& i = d.i;
  i.kind = Class::Memory;
  i.bytes = uint8_t(element_bytes(type)), i.count = 1;
  const size_t first = returns ? 1 : 0;
  if (returns) d.to(0);
  else i.o.push_back(special_offset(kSink));
  take_address(d, first);
  d.from_bytes(first + 1, 0, i.bytes);
  if (op == "cas") d.from_bytes(first + 2, 0, i.bytes);
  else i.o.push_back(special_offset(kZero));

  if (type == "f16x2" && op == "add") return set_atomic<AtomicAddPair<F16>, uint32_t>(d, space);
  if (type == "bf16x2" && op == "add") return set_atomic<AtomicAddPair<BF16>, uint32_t>(d, space);
  if (type == "f16" && op == "add") return set_atomic<AtomicAddHalf<F16>, uint16_t>(d, space);
  if (type == "bf16" && op == "add") return set_atomic<AtomicAddHalf<BF16>, uint16_t>(d, space);
  if (type == "f32" && op == "add") return set_atomic<AtomicAdd, float>(d, space);
  if (type == "f64" && op == "add") return set_atomic<AtomicAdd, double>(d, space);
  if (!with_integer(type, [&](auto tag) {
        using T = typename decltype(tag)::type;
        if constexpr (sizeof(T) >= 2) {
          if (op == "exch") set_atomic<AtomicExch, T>(d, space);
          if (op == "cas") set_atomic<AtomicCas, T>(d, space);
        }
        if constexpr (sizeof(T) >= 4) {
          if (op == "add") set_atomic<AtomicAdd, T>(d, space);
          if (op == "min") set_atomic<AtomicMin, T>(d, space);
          if (op == "max") set_atomic<AtomicMax, T>(d, space);
          if (op == "inc") set_atomic<AtomicInc, T>(d, space);
          if (op == "dec") set_atomic<AtomicDec, T>(d, space);
          if (op == "and") set_atomic<AtomicAnd, T>(d, space);
          if (op == "or") set_atomic<AtomicOr, T>(d, space);
          if (op == "xor") set_atomic<AtomicXor, T>(d, space);
        }
      }))
    d.fail("." + op + " of ." + type);
}

// ---- cp.async: the bytes are read at once and are there for others after a wait, and what orders the two

// o = shared address, global address, source bytes
Flow copy_async(Warp& warp, const Instruction& i, uint32_t mask) {
  Machine& machine = *warp.block->machine;
  PendingCopy copy{};
  uint64_t from[kLanes];
  uint32_t to[kLanes];
  const bool narrow = i.option & kNarrowBase;
  for_lanes(mask, [&](int lane) {
    to[lane] = (narrow ? warp.at<uint32_t>(i.o[0])[lane] : uint32_t(warp.at<uint64_t>(i.o[0])[lane])) + uint32_t(i.immediate);
    from[lane] = warp.at<uint64_t>(i.o[1])[lane] + uint64_t(int64_t(i.target));
  });
  uint32_t sized[kLanes], reading = 0;
  for_lanes(mask, [&](int lane) {
    sized[lane] = i.o.size() > 2 ? std::min<uint32_t>(warp.at<uint32_t>(i.o[2])[lane], i.bytes) : i.bytes;
    if (sized[lane]) reading |= 1u << lane;
  });
  // A lane that reads fewer bytes than it writes is checked for those it reads.
  uint32_t whole = 0;
  for_lanes(reading, [&](int lane) { if (sized[lane] == i.bytes) whole |= 1u << lane; });
  uint32_t found = whole ? check_global(warp, i, whole, from, i.bytes, kRead) : 0;
  for_lanes(reading & ~whole, [&](int lane) { found |= check_global(warp, i, 1u << lane, from, sized[lane], kRead, i.bytes); });
  for_lanes(found, [&](int lane) { std::memcpy(copy.data[lane], reinterpret_cast<const void*>(from[lane]), sized[lane]); });

  uint8_t poison[kLanes * 16];
  std::memset(poison, 0xff, sizeof poison);
  const uint32_t stored = check_shared(warp, i, mask, to, i.bytes, kPendingWrite, poison);
  for_lanes(stored, [&](int lane) {
    std::memset(&machine.shared[to[lane]], 0xff, i.bytes);
    copy.destination[lane] = to[lane], copy.group[lane] = warp.group[lane];
  });
  copy.lanes = stored, copy.place = i.place, copy.bytes = i.bytes, copy.issued = warp.clock;
  if (stored) warp.copies.push_back(copy);
  return Flow::Next;
}

Flow commit_group(Warp& warp, const Instruction&, uint32_t mask) {
  for_lanes(mask, [&](int lane) { warp.group[lane]++; });
  return Flow::Next;
}

// wait_group n: all groups but the last n. option 1: wait_all, also of copies of no group.
Flow wait_group(Warp& warp, const Instruction& i, uint32_t mask) {
  size_t kept = 0;
  for (size_t c = 0; c < warp.copies.size(); c++) {
    PendingCopy& copy = warp.copies[c];
    uint32_t complete = 0;
    for_lanes(copy.lanes & mask, [&](int lane) {
      if (i.option == 1 || copy.group[lane] + uint64_t(i.immediate) < warp.group[lane]) complete |= 1u << lane;
    });
    if (complete) {
      complete_copy(warp, copy, complete);
      warp.clock = std::max(warp.clock, copy.issued + 1);
    }
    copy.lanes &= ~complete;
    if (copy.lanes) {
      if (kept != c) warp.copies[kept] = copy;
      kept++;
    }
  }
  warp.copies.resize(kept);
  return Flow::Next;
}

void decode_cp(Decoder& d) {
  Instruction& i = d.i;
  i.kind = Class::Memory;
  if (!d.take("async")) d.fail("only cp.async");
  if (d.take("commit_group")) { i.run = commit_group; return; }
  if (d.take("wait_group")) { i.immediate = d.integer(0), i.run = wait_group; return; }
  if (d.take("wait_all")) { i.option = 1, i.run = wait_group; return; }
  d.take_any({"ca", "cg"});
  if (!d.take("shared")) d.take("shared::cta");
  d.take("global");
  d.take("L2::cache_hint");
  d.take_any({"L2::64B", "L2::128B", "L2::256B"});
  i.bytes = uint8_t(d.integer(2));
  if (i.bytes != 4 && i.bytes != 8 && i.bytes != 16) d.fail("it copies 4, 8 or 16 bytes");
  d.address(1);
  i.target = int32_t(i.immediate);
  const int32_t from = i.o.back();
  i.o.clear();
  take_address(d, 0);
  i.o.push_back(from);
  if (d.operand_count() > 3) d.from<uint32_t>(3);
  i.run = copy_async;
}

// ---- fences, and what has no effect here

Flow nothing(Warp&, const Instruction&, uint32_t) { return Flow::Next; }
Flow run_fence(Warp& warp, const Instruction&, uint32_t) {
  if (warp.block->machine->launch->check) fence(warp);
  return Flow::Next;
}
Flow fence_async_proxy(Warp& warp, const Instruction&, uint32_t mask) {
  // A fence of some lanes orders what those alone have done: it counts for none.
  if (warp.block->program().has_products && mask == warp.alive) fence_products(warp);
  return Flow::Next;
}
void decode_fence(Decoder& d) {
  if (d.name == "fence" && d.take("proxy")) {
    if (!d.take("async")) d.fail("only fence.proxy.async");
    const bool is_of_shared = !d.take("global");
    d.take_any({"shared::cta", "shared::cluster"});
    d.i.kind = Class::Sync, d.i.run = is_of_shared ? fence_async_proxy : nothing;
    return;
  }
  d.take_any({"sc", "acq_rel", "acquire", "release"});
  const bool of_block = d.take_any({"cta", "gpu", "gl", "sys", "cluster"}) == "cta";
  d.i.kind = Class::Sync, d.i.run = of_block ? nothing : run_fence;
}
void decode_prefetch(Decoder& d) {
  take_space(d), take_hints(d), d.take_any({"L1", "L2"});
  d.i.kind = Class::Memory, d.i.run = nothing;
}
Flow create_policy(Warp& warp, const Instruction& i, uint32_t mask) {
  for_lanes(mask, [&](int lane) { warp.at<uint64_t>(i.o[0])[lane] = 0; });
  return Flow::Next;
}
void decode_createpolicy(Decoder& d) {
  d.take_type();
  d.take("fractional"), take_hints(d), take_hints(d);
  d.to(0);
  d.i.kind = Class::Move, d.i.run = create_policy;
}

}  // namespace

const std::vector<Entry>& memory_table() {
  static const std::vector<Entry> table = {
      {"ld", "{.space}{hints}{.v2,v4,v8}.type", "d = what is at [a]", decode_ld},
      {"ldu", "{.space}{.v2,v4}.type", "d = what is at [a]", decode_ld},
      {"st", "{.space}{hints}{.v2,v4,v8}.type", "[a] = b", decode_st},
      {"atom", "{.sem}{.scope}{.space}.{add,min,max,exch,cas,inc,dec,and,or,xor}.type", "d = [a]; [a] = op(d, b{, c})",
       [](Decoder& d) { decode_atomic(d, true); }},
      {"red", "{.sem}{.scope}{.space}.{add,min,max,inc,dec,and,or,xor}.type", "[a] = op([a], b)",
       [](Decoder& d) { decode_atomic(d, false); }},
      {"cp", ".async.{ca,cg}.shared.global; .commit_group; .wait_group; .wait_all", "copies 4, 8 or 16 bytes a lane, the rest zero",
       decode_cp},
      {"membar", ".{cta,gl,sys}", "orders accesses", decode_fence},
      {"fence", "{.sc,acq_rel}.{cta,gpu,sys}; .proxy.async{.space}", "orders accesses; for wgmma", decode_fence},
      {"prefetch", "{.space}.{L1,L2}", "nothing", decode_prefetch},
      {"prefetchu", ".L1", "nothing", decode_prefetch},
      {"createpolicy", ".fractional.L2::x.b64", "d = 0: caching is not simulated", decode_createpolicy},
  };
  return table;
}

}  // namespace ptxsim
