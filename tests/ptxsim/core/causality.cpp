#include "causality.h"

#include <algorithm>

#include "machine.h"

namespace ptxsim {

Clock later_of(const Clock& a, const Clock& b) {
  if (a == nullptr || a == b) return b;
  if (b == nullptr) return a;
  auto merged = std::make_shared<std::map<uint64_t, std::vector<uint32_t>>>(*a);
  for (const auto& [block, ticks] : *b) {
    std::vector<uint32_t>& ours = (*merged)[block];
    ours.resize(std::max(ours.size(), ticks.size()));
    for (size_t w = 0; w < ticks.size(); w++) ours[w] = std::max(ours[w], ticks[w]);
  }
  return merged;
}

void Causality::merge(const Causality& other) {
  known = later_of(known, other.known), seen = later_of(seen, other.seen), released = later_of(released, other.released);
}

Clock ReleasedPlaces::at(uint64_t address) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = clocks_.find(address);
  return found == clocks_.end() ? nullptr : found->second;
}

void ReleasedPlaces::add(uint64_t address, const Clock& clock) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Clock& held = clocks_[address];
  held = later_of(held, clock);
}

static void release(Warp& warp) {
  auto own = std::make_shared<std::map<uint64_t, std::vector<uint32_t>>>();
  std::vector<uint32_t> ticks = warp.knows;
  ticks[size_t(warp.index)] = warp.tick;
  own->emplace(warp.block->index, std::move(ticks));
  warp.between_blocks.released = later_of(warp.between_blocks.known, own);
}

void fence(Warp& warp) {
  Causality& causality = warp.between_blocks;
  causality.known = later_of(causality.known, causality.seen);
  causality.seen = nullptr;
  release(warp);
}

void strong_access(Warp& warp, uint64_t address, bool reads, bool writes, Semantics semantics) {
  Causality& causality = warp.between_blocks;
  ReleasedPlaces& places = warp.block->machine->memory->released;
  if (reads) {
    Clock& learns = acquires(semantics) ? causality.known : causality.seen;
    learns = later_of(learns, places.at(address));
  }
  if (!writes) return;
  if (releases(semantics)) release(warp);
  if (causality.released != nullptr) places.add(address, causality.released);
}

bool known_before(const Warp& warp, uint64_t block, int of_warp, uint32_t tick) {
  const Clock& known = warp.between_blocks.known;
  if (known == nullptr) return false;
  const auto found = known->find(block);
  return found != known->end() && tick <= found->second[size_t(of_warp)];
}

}  // namespace ptxsim
