// The machine that runs a program: blocks of warps, their splits, and what they wait for.
//
// A warp executes in lock step as long as its lanes agree. Where a branch parts them, each part becomes a split with its own
// place in the program; the parts wait for each other at the nearest instruction that all of them must pass (the branch's
// immediate post-dominator), so that instruction counts do not hang on the order in which splits run. Splits are scheduled
// independently, as lanes are since Volta: one may wait at a barrier of the warp while another runs towards it.
#pragma once
#include <memory>
#include <random>

#include "memory.h"
#include "products.h"
#include "program.h"

namespace ptxsim {

struct Block;

// Lanes that parted at a branch and meet again at `place`; `around` is the join that encloses it, -1 for none.
struct Join {
  int32_t place = -1;
  uint32_t expected = 0, arrived = 0;
  int32_t around = -1;
  std::vector<int32_t> returns;    // of those that arrived
  size_t depth = 0;                // of calls
};

enum class State : uint8_t { Ready, AtBlockBarrier, AtWarpBarrier };

struct Split {
  int32_t place = 0;
  uint32_t lanes = 0;
  int32_t join = -1;
  State state = State::Ready;
  int32_t barrier = 0;             // 1 + the block barrier that it waits at or was released from
  std::vector<int32_t> returns;    // places to return to
};

// What a warp operation (shfl, vote, bar.warp.sync, mma) waits for: that all lanes of its mask have come to it.
struct Gathering {
  int32_t key = 0;                 // place of the instruction; kAnyWarpBarrier
  uint32_t mask = 0, arrived = 0;
  uint32_t left = 0;               // lanes that have not yet gone on
  bool complete = false, done = false;
};
constexpr int32_t kAnyWarpBarrier = -2;

struct PendingCopy {                 // a cp.async that no wait has completed
  uint32_t lanes;
  int32_t place;
  uint8_t bytes;
  uint32_t issued;                   // by the warp's clock
  uint32_t group[kLanes], destination[kLanes];
  uint8_t data[kLanes][16];
};

struct Warp {
  Block* block = nullptr;
  int index = 0;
  uint32_t alive = 0, all = 0;
  std::vector<uint8_t> registers;
  const uint8_t* constants = nullptr;
  std::vector<uint8_t> local;        // local_bytes of each lane, one after the other
  std::vector<Split> splits;
  std::vector<Join> joins;
  std::vector<Gathering> gatherings;
  std::vector<PendingCopy> copies;
  uint32_t group[kLanes];            // committed cp.async groups of each lane
  Products products;
  uint8_t carry[kLanes];             // the condition code of add.cc and its like
  // A clock that only waits for global memory move: what is loaded is there one latency later.
  uint32_t clock = 0, last_arrival = 0;
  std::vector<uint32_t> arrivals;    // of what a register was loaded with, by its place in the register file, in lanes
  int32_t current = 0;               // index of the running split

  // For the race checker: accesses are stamped with `tick`. Another access of this warp is ordered before this one if its
  // tick is below `synced`, or if a warp barrier that held both lanes came after it.
  uint32_t tick = 0, synced = 0;
  std::vector<std::pair<uint32_t, uint32_t>> partial_syncs;  // (tick, mask) of barriers of some lanes since `synced`
  std::vector<uint32_t> knows;       // knows[w]: accesses of warp w up to this tick are ordered before ours
  Causality between_blocks;

  Split& split() { return splits[current]; }
  template <class T> T* at(int32_t offset) {
    return reinterpret_cast<T*>((offset >= 0 ? registers.data() + offset : const_cast<uint8_t*>(constants) + ~offset));
  }
};

struct Barrier {
  uint32_t arrived = 0;              // threads
  uint32_t expected = 0;             // threads; 0: all of the block
  int32_t place = -1;
  uint32_t holding = 0;              // bar.red: threads whose predicate holds
  uint32_t result = 0;               // of the last bar.red
  std::vector<uint32_t> warps;       // that have arrived, each once
};

struct LaunchParams {
  uint32_t grid[3], block[3];
  uint32_t dynamic_shared = 0;
  bool check = true;
  uint64_t seed = 0;
  const uint8_t* params = nullptr;
  std::vector<uint64_t> blocks;      // which to run, in order of their index; empty: all
};

// One host thread's machine: it runs one block after the other.
struct Machine {
  const Program* program = nullptr;
  const LaunchParams* launch = nullptr;
  Memory* memory = nullptr;
  Counts counts;
  Findings findings;
  SharedShadow shadow;
  std::vector<uint8_t> shared;
  std::vector<SharedArray> shared_arrays;   // with the dynamic one
  uint32_t next_tick = 1;
  bool failed = false;

  Machine(const Program& program, const LaunchParams& launch, Memory& memory);
  void run_block(uint64_t index);
};

constexpr int kBarriers = 16;

struct Block {
  Machine* machine = nullptr;
  uint64_t index = 0;
  uint32_t threads = 0, alive = 0;
  std::vector<Warp> warps;
  Barrier barriers[kBarriers];
  std::vector<std::vector<IssuedProduct>> products;   // of each warpgroup

  const Program& program() const { return *machine->program; }
  void start(uint64_t index);
  void run();
  void deadlock();
  void exit_lanes(Warp& warp, uint32_t lanes);
  void release_if_full(int barrier);

 private:
  std::mt19937_64 random_;
};

// For the instructions.
void branch(Warp& warp, const Instruction& i, uint32_t taken);
void exit_split(Warp& warp, uint32_t lanes);
// Waits until all `wanted` lanes of the warp are at this operation. Returns those to run it for, of which none where `flow` says
// to wait, or to skip it since another split has run it.
uint32_t gather(Warp& warp, uint32_t lanes, uint32_t wanted, int32_t key, Flow& flow);

template <class F> inline void for_lanes(uint32_t mask, F f) {
  if (mask == kAllLanes) {
    for (int lane = 0; lane < kLanes; lane++) f(lane);
  } else {
    for (; mask; mask &= mask - 1) f(__builtin_ctz(mask));
  }
}

inline uint32_t mask_of(const uint8_t* predicate) {  // 32 bytes of 0 or 1
  uint32_t mask = 0;
  for (int part = 0; part < 4; part++) {
    uint64_t eight;
    std::memcpy(&eight, predicate + 8 * part, 8);
    mask |= uint32_t((eight * 0x0102040810204080ull) >> 56) << (8 * part);
  }
  return mask;
}

}  // namespace ptxsim
