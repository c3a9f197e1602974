// What the lanes of a warp do together: barriers, shuffles, votes, matrix fragments.
#include "fragments.h"

namespace ptxsim {
namespace {

// The mask operand, the same in all lanes that name themselves in it. Lanes of it that have exited are a finding.
uint32_t member_mask(Warp& warp, const Instruction& i, uint32_t mask, int32_t operand) {
  const int first = __builtin_ctz(mask);
  const uint32_t members = warp.at<uint32_t>(operand)[first] & warp.all;
  if ((members & mask) != mask) inactive_lane(warp, i, "lanes 0x" + hex(mask & ~members) + " are not in their own mask");
  if (members & warp.all & ~warp.alive) inactive_lane(warp, i, "lanes 0x" + hex(members & ~warp.alive) + " of the mask have exited");
  return members | mask;
}

// ---- shfl.sync d|p, a, b, c, mask

enum Shuffle : uint8_t { kUp, kDown, kButterfly, kIndex };

Flow shuffle(Warp& warp, const Instruction& i, uint32_t mask) {
  Flow flow;
  const uint32_t members = member_mask(warp, i, mask, i.o[5]);
  const uint32_t lanes = gather(warp, mask, members, i.place, flow);
  if (lanes == 0) return flow;
  const uint32_t *a = warp.at<uint32_t>(i.o[2]), *b = warp.at<uint32_t>(i.o[3]), *c = warp.at<uint32_t>(i.o[4]);
  uint32_t value[kLanes];
  uint8_t within[kLanes];
  for_lanes(lanes, [&](int lane) {
    const int segment = int(c[lane] >> 8 & 31), limit = int(c[lane] & 31), by = int(b[lane] & 31);
    const int most = (lane & segment) | (limit & ~segment), least = lane & segment;
    int from = i.option == kUp ? lane - by : i.option == kDown ? lane + by : i.option == kButterfly ? lane ^ by : (by & ~segment) | least;
    within[lane] = i.option == kUp ? from >= most : from <= most;
    if (!within[lane]) from = lane;
    if (!(lanes >> from & 1)) inactive_lane(warp, i, "lane " + std::to_string(lane) + " reads lane " + std::to_string(from) + ", which takes no part,");
    value[lane] = lanes >> from & 1 ? a[from] : 0xffffffffu;
  });
  uint32_t* d = warp.at<uint32_t>(i.o[0]);
  uint8_t* p = warp.at<uint8_t>(i.o[1]);
  for_lanes(lanes, [&](int lane) { d[lane] = value[lane], p[lane] = within[lane]; });
  return Flow::Next;
}

void decode_shfl(Decoder& d) {
  d.take("sync"), d.take_type();
  const std::string mode = d.take_any({"up", "down", "bfly", "idx"});
  d.i.option = mode == "up" ? kUp : mode == "down" ? kDown : mode == "bfly" ? kButterfly : kIndex;
  d.to(0);
  if (d.atoms(0) > 1) d.to(0, 1);
  else d.i.o.push_back(special_offset(kSink));
  for (size_t operand = 1; operand <= 4; operand++) d.from<uint32_t>(operand);
  d.i.kind = Class::Sync, d.i.run = shuffle;
}

// ---- vote.sync d, {!}a, mask; activemask d

enum Vote : uint8_t { kAll, kAny, kUni, kBallot };

Flow vote(Warp& warp, const Instruction& i, uint32_t mask) {
  Flow flow;
  const uint32_t members = member_mask(warp, i, mask, i.o[2]);
  const uint32_t lanes = gather(warp, mask, members, i.place, flow);
  if (lanes == 0) return flow;
  uint32_t holds = mask_of(warp.at<uint8_t>(i.o[1])) ^ (i.count ? kAllLanes : 0);
  holds &= lanes;
  if (i.option == kBallot) {
    for_lanes(lanes, [&](int lane) { warp.at<uint32_t>(i.o[0])[lane] = holds; });
  } else {
    const bool yes = i.option == kAll ? holds == lanes : i.option == kAny ? holds != 0 : holds == lanes || holds == 0;
    for_lanes(lanes, [&](int lane) { warp.at<uint8_t>(i.o[0])[lane] = yes; });
  }
  return Flow::Next;
}
void decode_vote(Decoder& d) {
  d.take_type(), d.take("sync");
  const std::string mode = d.take_any({"all", "any", "uni", "ballot"});
  d.i.option = mode == "all" ? kAll : mode == "any" ? kAny : mode == "uni" ? kUni : kBallot;
  d.to(0), d.from<uint8_t>(1), d.from<uint32_t>(2);
  d.i.count = d.atom(1).negated;
  d.i.kind = Class::Sync, d.i.run = vote;
}
Flow activemask(Warp& warp, const Instruction& i, uint32_t mask) {
  for_lanes(mask, [&](int lane) { warp.at<uint32_t>(i.o[0])[lane] = mask; });
  return Flow::Next;
}

// ---- match, redux

template <class T> Flow match(Warp& warp, const Instruction& i, uint32_t mask) {   // o = d, p, a, mask; option 1: all
  Flow flow;
  const uint32_t members = member_mask(warp, i, mask, i.o[3]);
  const uint32_t lanes = gather(warp, mask, members, i.place, flow);
  if (lanes == 0) return flow;
  const T* a = warp.at<T>(i.o[2]);
  uint32_t same[kLanes];
  for_lanes(lanes, [&](int lane) {
    same[lane] = 0;
    for_lanes(lanes, [&](int other) { if (a[other] == a[lane]) same[lane] |= 1u << other; });
  });
  for_lanes(lanes, [&](int lane) {
    const bool all = same[lane] == lanes;
    warp.at<uint32_t>(i.o[0])[lane] = i.option == 1 && !all ? 0 : same[lane];
    warp.at<uint8_t>(i.o[1])[lane] = all;
  });
  return Flow::Next;
}
void decode_match(Decoder& d) {
  const bool wide = d.take_type() == "b64";
  d.i.option = d.take("all");
  d.take("any"), d.take("sync");
  d.to(0);
  if (d.atoms(0) > 1) d.to(0, 1);
  else d.i.o.push_back(special_offset(kSink));
  if (wide) d.from<uint64_t>(1);
  else d.from<uint32_t>(1);
  d.from<uint32_t>(2);
  d.i.kind = Class::Sync, d.i.run = wide ? match<uint64_t> : match<uint32_t>;
}

enum Reduce : uint8_t { kAdd, kMin, kMax, kAndR, kOrR, kXorR };
template <class T> Flow reduce(Warp& warp, const Instruction& i, uint32_t mask) {
  Flow flow;
  const uint32_t members = member_mask(warp, i, mask, i.o[2]);
  const uint32_t lanes = gather(warp, mask, members, i.place, flow);
  if (lanes == 0) return flow;
  const T* a = warp.at<T>(i.o[1]);
  T r = a[__builtin_ctz(lanes)];
  for_lanes(lanes & (lanes - 1), [&](int lane) {
    const T x = a[lane];
    r = i.option == kAdd ? T(uint32_t(r) + uint32_t(x)) : i.option == kMin ? std::min(r, x) : i.option == kMax ? std::max(r, x)
        : i.option == kAndR ? T(r & x) : i.option == kOrR ? T(r | x) : T(r ^ x);
  });
  for_lanes(lanes, [&](int lane) { warp.at<T>(i.o[0])[lane] = r; });
  return Flow::Next;
}
void decode_redux(Decoder& d) {
  const std::string type = d.take_type();
  d.take("sync");
  const std::string op = d.take_any({"add", "min", "max", "and", "or", "xor"});
  d.i.option = op == "add" ? kAdd : op == "min" ? kMin : op == "max" ? kMax : op == "and" ? kAndR : op == "or" ? kOrR : kXorR;
  d.to(0), d.from<uint32_t>(1), d.from<uint32_t>(2);
  d.i.kind = Class::Sync, d.i.run = type == "s32" ? reduce<int32_t> : reduce<uint32_t>;
}

// ---- barriers

Flow warp_barrier(Warp& warp, const Instruction& i, uint32_t mask) {
  Flow flow;
  const uint32_t members = member_mask(warp, i, mask, i.o[0]);
  const uint32_t lanes = gather(warp, mask, members, kAnyWarpBarrier, flow);
  if (lanes == 0) return flow;
  warp.block->machine->counts.warp_barriers++;
  warp.tick++;
  if ((lanes & warp.alive) == warp.alive) {
    warp.synced = warp.tick;
    warp.partial_syncs.clear();
  } else {
    warp.partial_syncs.push_back({warp.tick, lanes});
  }
  return Flow::Next;
}

// bar.sync a{, b}; bar.arrive a, b; bar.red.op d, a{, b}, {!}c.  o = a, b, d, c. option: kind; count 1: c negated
enum BarKind : uint8_t { kSync, kArrive, kRedPopc, kRedAnd, kRedOr };
Flow block_barrier(Warp& warp, const Instruction& i, uint32_t mask) {
  Block& block = *warp.block;
  const int number = int(warp.at<uint32_t>(i.o[0])[__builtin_ctz(mask)]) & 15;
  Barrier& barrier = block.barriers[number];
  Split& split = warp.split();

  if (split.state == State::Ready && split.barrier == number + 1) {   // it has been released
    split.barrier = 0;
    if (i.option >= kRedPopc)
      for_lanes(mask, [&](int lane) {
        if (i.option == kRedPopc) warp.at<uint32_t>(i.o[2])[lane] = barrier.result;
        else warp.at<uint8_t>(i.o[2])[lane] = i.option == kRedAnd ? barrier.result == block.alive : barrier.result != 0;
      });
    return Flow::Next;
  }
  if (i.bytes == 1 && mask != warp.alive)   // .aligned: all lanes of the warp must be here
    block.machine->findings.add("barrier reached by part of a warp", i.place, -1,
                                "lanes 0x" + hex(mask) + " of 0x" + hex(warp.alive) + " of warp " + std::to_string(warp.index) + " of block " +
                                    std::to_string(block.index));
  const uint32_t expected = i.o.size() > 1 ? warp.at<uint32_t>(i.o[1])[__builtin_ctz(mask)] : 0;
  if (barrier.place < 0) barrier.place = i.place;
  barrier.expected = expected;
  barrier.arrived += uint32_t(__builtin_popcount(mask));
  if (i.option >= kRedPopc) {
    const uint32_t holds = mask_of(warp.at<uint8_t>(i.o[3])) ^ (i.count ? kAllLanes : 0);
    barrier.holding += uint32_t(__builtin_popcount(holds & mask));
  }
  if (std::find(barrier.warps.begin(), barrier.warps.end(), uint32_t(warp.index)) == barrier.warps.end()) barrier.warps.push_back(uint32_t(warp.index));
  if (i.option == kArrive) {
    split.place++;
    block.release_if_full(number);
    return Flow::Control;
  }
  split.state = State::AtBlockBarrier;
  split.barrier = number + 1;
  block.release_if_full(number);
  return Flow::Wait;
}

void decode_bar(Decoder& d) {
  Instruction& i = d.i;
  i.kind = Class::Sync;
  if (d.take("warp")) {
    d.take("sync");
    d.from<uint32_t>(0);
    i.run = warp_barrier;
    return;
  }
  d.take("cta");
  i.bytes = d.take("aligned") || d.name == "bar";
  i.run = block_barrier;
  const size_t n = d.operand_count();
  if (d.take("red")) {
    const std::string op = d.take_any({"popc", "and", "or"});
    d.take_type();
    i.option = op == "popc" ? kRedPopc : op == "and" ? kRedAnd : kRedOr;
    d.from<uint32_t>(1);
    if (n > 3) d.from<uint32_t>(2);
    else i.o.push_back(special_offset(kZero));
    d.to(0), d.from<uint8_t>(n - 1);
    i.count = d.atom(n - 1).negated;
    return;
  }
  i.option = d.take("arrive") ? kArrive : kSync;
  d.take("sync");
  d.from<uint32_t>(0);
  if (n > 1) d.from<uint32_t>(1);
}

// ---- ldmatrix, stmatrix, movmatrix: 8 x 8 matrices of 16 bits. Lane 8m + r has the address of row r of matrix m; lane l holds the
// elements 2(l % 4) and the next of row l / 4 (transposed: of column l / 4).

template <bool kStore> Flow matrix_memory(Warp& warp, const Instruction& i, uint32_t mask) {   // o = address, registers; of a load, address last
  Flow flow;
  const uint32_t lanes = gather(warp, mask, warp.all, i.place, flow);
  if (lanes == 0) return flow;
  if (lanes != kAllLanes) inactive_lane(warp, i, "a matrix of lanes 0x" + hex(lanes));
  Machine& machine = *warp.block->machine;
  const int count = i.count;
  const bool transposed = i.option & 2;
  const int32_t address = kStore ? i.o.front() : i.o.back();
  uint32_t at[kLanes];
  const uint32_t rows = count == 4 ? kAllLanes : (1u << (8 * count)) - 1;
  for_lanes(rows, [&](int lane) {
    at[lane] = (i.option & 1 ? warp.at<uint32_t>(address)[lane] : uint32_t(warp.at<uint64_t>(address)[lane])) + uint32_t(i.immediate);
  });
  uint16_t values[kLanes][8];   // row r of matrix m at 8m + r
  auto element = [&](int matrix, int lane, int half) -> uint16_t& {
    return transposed ? values[8 * matrix + 2 * (lane % 4) + half][lane / 4] : values[8 * matrix + lane / 4][2 * (lane % 4) + half];
  };
  if (kStore) {
    for (int m = 0; m < count; m++)
      for (int lane = 0; lane < kLanes; lane++)
        for (int half = 0; half < 2; half++) element(m, lane, half) = warp.at<uint16_t>(i.o[m + 1])[2 * lane + half];
    const uint32_t found = check_shared(warp, i, rows, at, 16, kWrite, reinterpret_cast<const uint8_t*>(values));
    for_lanes(found, [&](int row) { std::memcpy(&machine.shared[at[row]], values[row], 16); });
  } else {
    const uint32_t found = check_shared(warp, i, rows, at, 16, kRead, nullptr);
    std::memset(values, 0xff, sizeof values);
    for_lanes(found, [&](int row) { std::memcpy(values[row], &machine.shared[at[row]], 16); });
    for (int m = 0; m < count; m++)
      for_lanes(lanes, [&](int lane) {
        for (int half = 0; half < 2; half++) warp.at<uint16_t>(i.o[m])[2 * lane + half] = element(m, lane, half);
      });
  }
  return Flow::Next;
}

template <bool kStore> void decode_matrix(Decoder& d) {
  d.take_type(), d.take("sync"), d.take("aligned"), d.take("m8n8");
  if (!d.take("shared")) d.take("shared::cta");
  Instruction& i = d.i;
  i.count = d.take("x4") ? 4 : d.take("x2") ? 2 : (d.take("x1"), 1);
  const bool transposed = d.take("trans");
  const size_t address = kStore ? 0 : 1, data = kStore ? 1 : 0;
  if (kStore) d.address(address);
  const Atom& base = d.atom(address);
  i.option = uint8_t((transposed ? 2 : 0) | (base.kind == Atom::Register && base.bytes == 4 ? 1 : 0));
  for (size_t part = 0; part < i.count; part++) {
    if (kStore) d.from<uint32_t>(data, part);
    else d.to(data, part);
  }
  if (!kStore) d.address(address);
  i.bytes = 16;
  i.kind = Class::Memory, i.run = matrix_memory<kStore>;
}

Flow move_matrix(Warp& warp, const Instruction& i, uint32_t mask) {
  Flow flow;
  const uint32_t lanes = gather(warp, mask, warp.all, i.place, flow);
  if (lanes == 0) return flow;
  uint16_t values[8][8];
  const uint16_t* a = warp.at<uint16_t>(i.o[1]);
  for (int lane = 0; lane < kLanes; lane++)
    for (int half = 0; half < 2; half++) values[lane / 4][2 * (lane % 4) + half] = a[2 * lane + half];
  uint16_t* d = warp.at<uint16_t>(i.o[0]);
  for_lanes(lanes, [&](int lane) {
    for (int half = 0; half < 2; half++) d[2 * lane + half] = values[2 * (lane % 4) + half][lane / 4];
  });
  return Flow::Next;
}
void decode_movmatrix(Decoder& d) {
  d.take_type(), d.take("sync"), d.take("aligned"), d.take("m8n8"), d.take("trans");
  d.to(0), d.from<uint32_t>(1);
  d.i.kind = Class::Move, d.i.run = move_matrix;
}

// ---- mma.sync m16n8k*: fragments as the PTX ISA draws them. g = lane / 4, t = lane % 4.

// o = D (4 or 2 registers), A, B, C. count: k; bytes: 2 where C and D are f16.
template <Input kInput> Flow multiply(Warp& warp, const Instruction& i, uint32_t mask) {
  Flow flow;
  const uint32_t lanes = gather(warp, mask, warp.all, i.place, flow);
  if (lanes == 0) return flow;
  if (lanes != kAllLanes) inactive_lane(warp, i, "mma by lanes 0x" + hex(lanes));
  const int k = i.count, halves = kInput == kInTF32 ? 1 : 2;   // elements of a register
  const int a_registers = 16 * k / (32 * halves), b_registers = 8 * k / (32 * halves);
  const int d_registers = i.bytes == 2 ? 2 : 4;
  const int32_t *d = &i.o[0], *a = d + d_registers, *b = a + a_registers, *c = b + b_registers;
  alignas(64) float rows[16][16], columns[16][8];
  for (int lane = 0; lane < kLanes; lane++) {
    const int g = lane / 4, t = lane % 4;
    for (int r = 0; r < a_registers; r++)
      for (int h = 0; h < halves; h++) rows[g + 8 * (r % 2)][t * halves + h + 4 * halves * (r / 2)] = element_of<kInput>(warp, a[r], lane, h);
    for (int r = 0; r < b_registers; r++)
      for (int h = 0; h < halves; h++) columns[t * halves + h + 4 * halves * r][g] = element_of<kInput>(warp, b[r], lane, h);
  }
  // Products are exact in float; their sum is rounded once.
  double sums[16][8] = {};
  for (int row = 0; row < 16; row++)
    for (int n = 0; n < k; n++)
      for (int column = 0; column < 8; column++) sums[row][column] += double(rows[row][n] * columns[n][column]);
  for (int lane = 0; lane < kLanes; lane++) {
    const int g = lane / 4, t = lane % 4;
    for (int e = 0; e < 4; e++) {
      const double sum = sums[g + 8 * (e / 2)][2 * t + e % 2];
      if (d_registers == 4) {
        warp.at<float>(d[e])[lane] = float(sum + double(warp.at<float>(c[e])[lane]));
      } else {
        uint16_t* out = warp.at<uint16_t>(d[e / 2]) + 2 * lane + e % 2;
        *out = pack_nearest<F16>(float(sum + double(unpack<F16>(warp.at<uint16_t>(c[e / 2])[2 * lane + e % 2]))));
      }
    }
  }
  warp.block->machine->counts.mma_flops += uint64_t(2) * 16 * 8 * uint64_t(k);
  return Flow::Next;
}

void decode_mma(Decoder& d) {
  const std::string c = d.take_type(), b = d.take_type(), a = d.take_type(), result = d.take_type();
  d.take("sync"), d.take("aligned"), d.take("row"), d.take("col");
  const std::string shape = d.take_any({"m16n8k4", "m16n8k8", "m16n8k16"});
  if (shape.empty() || a != b || c != result || (c != "f32" && !(c == "f16" && a == "f16"))) d.fail("no such shape and types");
  Instruction& i = d.i;
  i.count = uint8_t(std::stoi(shape.substr(6)));
  i.bytes = c == "f16" ? 2 : 4;
  const bool tf32 = a == "tf32";
  if ((a != "f16" && a != "bf16" && !tf32) || (tf32 ? i.count == 16 : i.count == 4)) d.fail("no such shape and types");
  const size_t halves = tf32 ? 1 : 2, parts[4] = {i.bytes == 2 ? 2u : 4u, i.count * 16 / (32 * halves), i.count * 8 / (32 * halves), i.bytes == 2 ? 2u : 4u};
  for (size_t part = 0; part < parts[0]; part++) d.to(0, part);
  for (size_t operand = 1; operand < 4; operand++)
    for (size_t part = 0; part < parts[operand]; part++) d.from<uint32_t>(operand, part);
  i.kind = Class::Tensor;
  i.run = a == "f16" ? multiply<kInF16> : a == "bf16" ? multiply<kInBF16> : multiply<kInTF32>;
}

Flow nothing(Warp&, const Instruction&, uint32_t) { return Flow::Next; }

}  // namespace

const std::vector<Entry>& warp_table() {
  static const std::vector<Entry> table = {
      {"bar", ".sync a{, b}; .arrive a, b; .red.{popc,and,or} d, a{, b}, p; .warp.sync mask", "waits for the block, or for lanes of the warp", decode_bar},
      {"barrier", "{.cta}.{sync,arrive,red}{.aligned}", "waits for the block", decode_bar},
      {"shfl", ".sync.{up,down,bfly,idx}.b32", "d = a of another lane, p = is it within the segment", decode_shfl},
      {"vote", ".sync.{all,any,uni}.pred; .ballot.b32", "d = what the lanes' predicates hold together", decode_vote},
      {"match", ".{any,all}.sync.{b32,b64}", "d = lanes that have the same a", decode_match},
      {"redux", ".sync.{add,min,max}.{u32,s32}; .{and,or,xor}.b32", "d = the lanes' a, reduced", decode_redux},
      {"activemask", ".b32", "d = lanes that run this together", [](Decoder& d) {
         d.take_type(), d.to(0);
         d.i.kind = Class::Sync, d.i.run = activemask;
       }},
      {"ldmatrix", ".sync.aligned.m8n8.{x1,x2,x4}{.trans}.shared.b16", "d = fragments of 8 x 8 matrices", decode_matrix<false>},
      {"stmatrix", ".sync.aligned.m8n8.{x1,x2,x4}{.trans}.shared.b16", "stores fragments of 8 x 8 matrices", decode_matrix<true>},
      {"movmatrix", ".sync.aligned.m8n8.trans.b16", "d = fragment a, transposed", decode_movmatrix},
      {"mma", ".sync.aligned.{m16n8k8,m16n8k16}.row.col.{f32,f16}.{f16,bf16}; .{m16n8k4,m16n8k8}.f32.tf32", "D = A B + C", decode_mma},
      {"nanosleep", ".u32", "nothing", [](Decoder& d) { d.take_type(), d.i.kind = Class::Sync, d.i.run = nothing; }},
      {"griddepcontrol", ".{launch_dependents,wait}", "nothing: launches do not overlap here", [](Decoder& d) {
         d.take_any({"launch_dependents", "wait"}), d.i.kind = Class::Sync, d.i.run = nothing;
       }},
  };
  return table;
}

}  // namespace ptxsim
