#include "machine.h"

#include <algorithm>

namespace ptxsim {

constexpr uint64_t kMostInstructions = 1ull << 26;  // of a block

Machine::Machine(const Program& program, const LaunchParams& launch, Memory& memory)
    : program(&program), launch(&launch), memory(&memory) {
  counts.lines.resize(program.code.size());
  shared.resize(size_t(program.static_shared) + launch.dynamic_shared);
  if (launch.check) shadow.cells.resize(shared.size());
  shared_arrays = program.shared_arrays;
  if (launch.dynamic_shared > 0)
    shared_arrays.push_back({uint32_t(program.static_shared), launch.dynamic_shared, "the dynamic shared memory"});
}

void Machine::run_block(uint64_t index) {
  Block block;
  block.machine = this;
  block.start(index);
  block.run();
}

// ---- a block

static void arrive_at_join(Warp& warp);

static void fill(Warp& warp, int special, uint64_t value) {
  uint64_t* lanes = reinterpret_cast<uint64_t*>(warp.registers.data() + special_offset(special));
  // Read as 32 bits a lane or as 64: the first 32 words serve the former. Only narrow values are ever special.
  uint32_t* words = reinterpret_cast<uint32_t*>(lanes);
  for (int lane = 0; lane < kLanes; lane++) words[lane] = uint32_t(value);
}

void Block::start(uint64_t number) {
  const LaunchParams& launch = *machine->launch;
  const Program& program = *machine->program;
  index = number;
  random_.seed(launch.seed * 0x9e3779b97f4a7c15ull + number);
  threads = launch.block[0] * launch.block[1] * launch.block[2];
  alive = threads;
  const uint32_t count = (threads + kLanes - 1) / kLanes;
  // Poison: NaN in every floating type.
  std::fill(machine->shared.begin(), machine->shared.end(), 0xff);
  if (machine->next_tick > 0xf0000000u) {
    std::fill(machine->shadow.cells.begin(), machine->shadow.cells.end(), SharedCell{});
    machine->next_tick = 1;
  }
  machine->shadow.base = machine->next_tick;

  const uint64_t x = launch.grid[0], y = launch.grid[1];
  const uint64_t ctaid[3] = {number % x, number / x % y, number / (x * y)};
  warps.resize(count);
  products.resize((count + 3) / 4);
  for (uint32_t w = 0; w < count; w++) {
    Warp& warp = warps[w];
    warp.block = this;
    warp.index = int(w);
    const uint32_t lanes = std::min(threads - w * kLanes, uint32_t(kLanes));
    warp.all = warp.alive = lanes == kLanes ? kAllLanes : (1u << lanes) - 1;
    warp.registers.assign(program.register_bytes, 0);
    warp.arrivals.assign(size_t(program.register_bytes / kLanes), 0);
    warp.constants = program.constants.data();
    warp.local.assign(size_t(program.local_bytes) * kLanes, 0xff);
    warp.splits.push_back(Split{0, warp.alive, -1, State::Ready, 0, {}});
    warp.tick = machine->next_tick;
    warp.synced = machine->next_tick;
    warp.knows.assign(count, machine->next_tick - 1);
    std::fill(warp.group, warp.group + kLanes, 0u);
    if (program.has_products) {
      warp.products.registers.resize(size_t(program.register_bytes / kLanes));
      warp.products.fenced = warp.knows;
    }
    std::fill(warp.carry, warp.carry + kLanes, uint8_t(0));
    for (int axis = 0; axis < 3; axis++) {
      fill(warp, kNtidX + axis, launch.block[axis]);
      fill(warp, kCtaidX + axis, ctaid[axis]);
      fill(warp, kNctaidX + axis, launch.grid[axis]);
    }
    fill(warp, kWarpid, w);
    fill(warp, kNwarpid, count);
    fill(warp, kDynamicSmem, launch.dynamic_shared);
    fill(warp, kTotalSmem, machine->shared.size());
    fill(warp, kSmid, number % 108);
    for (int lane = 0; lane < kLanes; lane++) {
      const uint32_t thread = w * kLanes + lane;
      const uint32_t tid[3] = {thread % launch.block[0], thread / launch.block[0] % launch.block[1],
                               thread / (launch.block[0] * launch.block[1])};
      for (int axis = 0; axis < 3; axis++) warp.at<uint32_t>(special_offset(kTidX + axis))[lane] = tid[axis];
      const uint32_t self = 1u << lane;
      warp.at<uint32_t>(special_offset(kLaneid))[lane] = uint32_t(lane);
      warp.at<uint32_t>(special_offset(kLanemaskEq))[lane] = self;
      warp.at<uint32_t>(special_offset(kLanemaskLt))[lane] = self - 1;
      warp.at<uint32_t>(special_offset(kLanemaskLe))[lane] = self | (self - 1);
      warp.at<uint32_t>(special_offset(kLanemaskGt))[lane] = ~(self | (self - 1));
      warp.at<uint32_t>(special_offset(kLanemaskGe))[lane] = ~(self - 1);
    }
  }
}

// A warp waits for what it loaded where it first uses it. A move hands it on: in the GPU's code there is none.
static void await_loads(Warp& warp, const Instruction& i) {
  uint32_t arrival = 0;
  for (size_t n = i.results; n < i.o.size(); n++)
    if (i.o[n] >= 0) arrival = std::max(arrival, warp.arrivals[i.o[n] / kLanes]);
  for (size_t n = 0; n < i.results; n++) warp.arrivals[i.o[n] / kLanes] = arrival;
  if (i.kind != Class::Move) warp.clock = std::max(warp.clock, arrival);
}

// Runs the current split until it parts, waits, ends or has used its turn. Returns how many instructions it ran.
static uint64_t run_split(Warp& warp, uint64_t turn) {
  const std::vector<Instruction>& code = warp.block->program().code;
  Machine& machine = *warp.block->machine;
  uint64_t executed = 0;
  while (executed < turn) {
    Split& split = warp.split();
    const Instruction& i = code[split.place];
    if (i.reconverges && split.join >= 0 && warp.joins[split.join].place == split.place &&
        warp.joins[split.join].depth == split.returns.size()) {
      arrive_at_join(warp);
      return executed;
    }
    uint32_t mask = split.lanes;
    if (i.guard >= 0) {
      const uint32_t holds = mask_of(warp.at<uint8_t>(i.guard));
      mask &= i.guard_negated ? ~holds : holds;
    }
    executed++;
    machine.counts.instructions[size_t(i.kind)]++;
    if (mask == 0) {
      split.place++;
      continue;
    }
    if (warp.last_arrival > warp.clock) await_loads(warp, i);
    if (i.meets_products && machine.launch->check) touch_product_registers(warp, i);
    switch (i.run(warp, i, mask)) {
      case Flow::Next: warp.split().place++; break;
      case Flow::Control: return executed;
      case Flow::Skip: warp.split().place++; [[fallthrough]];
      case Flow::Wait: machine.counts.instructions[size_t(i.kind)]--; return executed;
    }
  }
  return executed;
}

void Block::run() {
  const bool shuffled = machine->launch->seed != 0;
  size_t next = 0;
  uint64_t budget = kMostInstructions;
  std::vector<int> ready;
  while (alive > 0 && !machine->failed) {
    if (shuffled) next = random_() % warps.size();
    ready.clear();
    Warp* warp = nullptr;
    for (size_t k = 0; k < warps.size() && ready.empty(); k++) {
      warp = &warps[(next + k) % warps.size()];
      for (size_t s = 0; s < warp->splits.size(); s++)
        if (warp->splits[s].state == State::Ready) ready.push_back(int(s));
    }
    if (ready.empty()) return deadlock();
    next = warp->index;
    if (shuffled) {
      warp->current = ready[random_() % ready.size()];
    } else {  // the one furthest behind
      warp->current = *std::min_element(ready.begin(), ready.end(),
                                        [&](int a, int b) { return warp->splits[a].place < warp->splits[b].place; });
    }
    const int32_t place = warp->split().place;
    const uint64_t turn = shuffled ? 1 + random_() % 64 : 4096;
    if (budget < turn) {
      machine->findings.add("endless loop", place, -1,
                            "block " + std::to_string(index) + " has run " + std::to_string(kMostInstructions) + " warp instructions");
      machine->failed = true;
    }
    budget -= run_split(*warp, turn);
  }
  if (!machine->failed) check_warpgroups(*this);
  for (Warp& warp : warps) {
    machine->next_tick = std::max(machine->next_tick, warp.tick + 2);
    machine->counts.latencies += warp.clock;
  }
}

void Block::deadlock() {
  // Every thread that is left waits: for others that wait elsewhere, or have left.
  for (Warp& warp : warps) {
    for (const Split& split : warp.splits) {
      const bool at_barrier = split.state == State::AtBlockBarrier;
      char text[160];
      snprintf(text, sizeof text, "block %llu warp %d lanes 0x%x wait at %s%s for threads that never come",
               (unsigned long long)index, warp.index, split.lanes, at_barrier ? "barrier " : "a warp operation",
               at_barrier ? std::to_string(split.barrier - 1).c_str() : "");
      machine->findings.add("deadlock", split.place, -1, text);
    }
  }
  machine->failed = true;
}

void Block::release_if_full(int number) {
  Barrier& barrier = barriers[number];
  if (barrier.arrived == 0) return;
  const uint32_t wanted = barrier.expected != 0 ? barrier.expected : alive;
  if (barrier.arrived < wanted) return;
  if (barrier.expected == 0 && alive < threads)
    machine->findings.add("barrier reached by part of the block", barrier.place, -1,
                          std::to_string(alive) + " of the " + std::to_string(threads) + " threads of block " + std::to_string(index) +
                              ", the others have exited");
  machine->counts.barriers++;
  // What each warp had done before it arrived is before what any of them does from now on.
  // Through one another they also know what the others knew of warps that are not here.
  std::vector<uint32_t> known(warps.size());
  for (uint32_t a : barrier.warps) {
    for (size_t w = 0; w < warps.size(); w++) known[w] = std::max(known[w], warps[a].knows[w]);
    known[a] = std::max(known[a], warps[a].tick);
  }
  if (program().has_products) {
    std::vector<uint32_t> fenced(warps.size());
    for (uint32_t a : barrier.warps)
      for (size_t w = 0; w < warps.size(); w++) fenced[w] = std::max(fenced[w], warps[a].products.fenced[w]);
    for (uint32_t a : barrier.warps) warps[a].products.fenced = fenced;
  }
  Causality between_blocks;
  for (uint32_t a : barrier.warps) between_blocks.merge(warps[a].between_blocks);
  for (uint32_t a : barrier.warps) warps[a].knows = known, warps[a].between_blocks = between_blocks;
  for (uint32_t a : barrier.warps) {
    warps[a].synced = ++warps[a].tick;
    warps[a].partial_syncs.clear();
    for (Split& split : warps[a].splits)
      if (split.state == State::AtBlockBarrier && split.barrier == number + 1) split.state = State::Ready;
  }
  const uint32_t holding = barrier.holding;
  barrier = Barrier{};
  barrier.result = holding;
}

void Block::exit_lanes(Warp& warp, uint32_t lanes) {
  warp.alive &= ~lanes;
  alive -= uint32_t(__builtin_popcount(lanes));
  for (Join& join : warp.joins) join.expected &= ~lanes;
  for (int b = 0; b < kBarriers; b++) release_if_full(b);
}

// ---- splits and joins

static void drop_join(Warp& warp, int32_t join) {
  // The last one goes for good; others keep their place in the list until they are the last.
  warp.joins[join].place = -1;
  while (!warp.joins.empty() && warp.joins.back().place == -1 && warp.joins.back().expected == 0) warp.joins.pop_back();
}

static void complete_join(Warp& warp, int32_t index) {
  Join join = warp.joins[index];
  if (join.place < 0 || join.arrived != join.expected) return;
  warp.joins[index].expected = warp.joins[index].arrived = 0;
  drop_join(warp, index);
  if (join.arrived != 0) warp.splits.push_back(Split{join.place, join.arrived, join.around, State::Ready, 0, join.returns});
}

static void arrive_at_join(Warp& warp) {
  const Split split = warp.split();
  Join& join = warp.joins[split.join];
  join.arrived |= split.lanes;
  join.returns = split.returns;
  warp.splits.erase(warp.splits.begin() + warp.current);
  complete_join(warp, split.join);
}

static void wake_if_gathered(Warp& warp, Gathering& gathering) {
  if (gathering.complete || (gathering.mask & warp.alive & ~gathering.arrived) != 0) return;
  gathering.complete = true;
  for (Split& split : warp.splits)
    if (split.state == State::AtWarpBarrier && (split.lanes & gathering.arrived)) split.state = State::Ready;
}

void branch(Warp& warp, const Instruction& i, uint32_t taken) {
  Split& split = warp.split();
  const uint32_t stay = split.lanes & ~taken;
  if (taken == 0) {
    split.place++;
  } else if (stay == 0) {
    split.place = i.target;
  } else {
    const size_t depth = split.returns.size();
    int32_t join = split.join;
    const bool known = join >= 0 && warp.joins[join].place == i.join && warp.joins[join].depth == depth;
    if (i.join >= 0 && !known) {
      warp.joins.push_back(Join{i.join, split.lanes, 0, split.join, {}, depth});
      join = int32_t(warp.joins.size()) - 1;
    }
    Split other = split;
    split.lanes = stay, split.join = join, split.place++;
    other.lanes = taken, other.join = join, other.place = i.target;
    warp.splits.push_back(other);
  }
}

void exit_split(Warp& warp, uint32_t lanes) {
  Split& split = warp.split();
  const int32_t join = split.join;
  split.lanes &= ~lanes;
  if (split.lanes == 0)
    warp.splits.erase(warp.splits.begin() + warp.current);
  else
    split.place++;
  warp.block->exit_lanes(warp, lanes);
  for (int32_t j = join; j >= 0;) {
    const int32_t around = warp.joins[j].around;
    complete_join(warp, j);
    j = around;
  }
  // Lanes that wait for those that left.
  for (Gathering& gathering : warp.gatherings) wake_if_gathered(warp, gathering);
}

// ---- operations of a warp

uint32_t gather(Warp& warp, uint32_t lanes, uint32_t wanted, int32_t key, Flow& flow) {
  flow = Flow::Next;
  wanted &= warp.all;
  for (size_t g = 0; g < warp.gatherings.size(); g++) {
    Gathering& gathering = warp.gatherings[g];
    if (gathering.key != key || gathering.mask != wanted || !(gathering.complete ? gathering.left & lanes : true)) continue;
    if (!gathering.complete) {
      gathering.arrived |= lanes, gathering.left |= lanes;
      warp.split().state = State::AtWarpBarrier;
      wake_if_gathered(warp, gathering);
      flow = Flow::Wait;
      return 0;
    }
    const uint32_t all = gathering.done ? 0 : gathering.arrived;  // the first that wakes runs it for all
    flow = gathering.done ? Flow::Skip : Flow::Next;
    gathering.done = true;
    gathering.left &= ~lanes;
    if (gathering.left == 0) warp.gatherings.erase(warp.gatherings.begin() + g);
    return all;
  }
  if ((wanted & warp.alive & ~lanes) == 0) return lanes;  // all of them are here
  warp.gatherings.push_back(Gathering{key, wanted, lanes, lanes, false, false});
  warp.split().state = State::AtWarpBarrier;
  flow = Flow::Wait;
  return 0;
}

}  // namespace ptxsim
