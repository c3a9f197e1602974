#include "memory.h"

#include <algorithm>
#include <cstdio>

#include "machine.h"

namespace ptxsim {

void Findings::add(const char* kind, int32_t place, int32_t other, const std::string& detail) {
  auto [entry, is_new] = all.try_emplace({kind, place, other}, Finding{kind, detail, place, other, 1});
  if (!is_new) entry->second.times++;
}

void Findings::merge(const Findings& findings) {
  for (const auto& [key, finding] : findings.all) {
    auto [entry, is_new] = all.try_emplace(key, finding);
    if (!is_new) entry->second.times += finding.times;
  }
}

void LineCounts::add(const LineCounts& other) {
  requests += other.requests, sectors += other.sectors, ideal_sectors += other.ideal_sectors, bytes += other.bytes;
  shared_requests += other.shared_requests, wavefronts += other.wavefronts, ideal_wavefronts += other.ideal_wavefronts;
  atomics += other.atomics;
}

void Counts::add(const Counts& other) {
  for (size_t c = 0; c < instructions.size(); c++) instructions[c] += other.instructions[c];
  mma_flops += other.mma_flops, barriers += other.barriers, warp_barriers += other.warp_barriers;
  wide_global += other.wide_global;
  fetched_bytes += other.fetched_bytes, latencies += other.latencies;
  lines.resize(std::max(lines.size(), other.lines.size()));
  for (size_t l = 0; l < other.lines.size(); l++) lines[l].add(other.lines[l]);
}

// ---- regions

Region::Region(uint64_t base, uint64_t bytes, std::string name, uint32_t element, uint8_t* written, bool read_only)
    : base(base), bytes(bytes), name(std::move(name)), element(element), written(written), read_only(read_only),
      page_count((base % kPageBytes + bytes) / kPageBytes + 1), pages(new std::atomic<Page*>[page_count]()) {}

Region::~Region() {
  for (uint64_t p = 0; p < page_count; p++) delete pages[p].load();
}

Page& Region::page(uint64_t from_page) {
  std::atomic<Page*>& slot = pages[from_page / kPageBytes];
  Page* page = slot.load(std::memory_order_acquire);
  if (page == nullptr) {
    Page* fresh = new Page;
    fresh->cells = std::make_unique<GlobalCell[]>(kPageBytes / element);
    if (slot.compare_exchange_strong(page, fresh, std::memory_order_acq_rel)) return *fresh;
    delete fresh;  // another thread was first
  }
  return *page;
}

Region* Memory::find(uint64_t address, uint64_t bytes) {
  auto after = std::upper_bound(regions.begin(), regions.end(), address,
                                [](uint64_t a, const std::unique_ptr<Region>& region) { return a < region->base; });
  if (after == regions.begin()) return nullptr;
  Region* region = std::prev(after)->get();
  return address - region->base + bytes <= region->bytes ? region : nullptr;
}

std::string Memory::nearest(uint64_t address) {
  char text[300];
  for (size_t r = 0; r < former.size(); r++) {
    auto [base, bytes] = former[r];
    if (address - base < bytes && find(address, 1) == nullptr) {
      snprintf(text, sizeof text, "byte %llu of %s, which belongs to an earlier launch", (unsigned long long)(address - base),
               former_names[r].c_str());
      return text;
    }
  }
  const Region* best = nullptr;
  uint64_t best_distance = ~0ull;
  for (const auto& region : regions) {
    const uint64_t end = region->base + region->bytes;
    const uint64_t distance = address < region->base ? region->base - address : address - std::min(address, end);
    if (distance < best_distance) best = region.get(), best_distance = distance;
  }
  if (best == nullptr) return "there is no global memory";
  if (address < best->base)
    snprintf(text, sizeof text, "%llu bytes before %s", (unsigned long long)(best->base - address), best->name.c_str());
  else
    snprintf(text, sizeof text, "byte %llu of %s, which has %llu", (unsigned long long)(address - best->base), best->name.c_str(),
             (unsigned long long)best->bytes);
  return text;
}

void Memory::unique_sectors(uint64_t& read, uint64_t& written) {
  read = written = 0;
  for (const auto& region : regions) {
    for (uint64_t p = 0; p < region->page_count; p++) {
      const Page* page = region->pages[p].load();
      if (page == nullptr) continue;
      for (uint64_t bits : page->read_sectors) read += __builtin_popcountll(bits);
      for (uint64_t bits : page->written_sectors) written += __builtin_popcountll(bits);
    }
  }
}

// ---- the order of accesses

namespace {

// Is the access of `lanes` of warp `other` at `tick` before what lane `lane` of `warp` does now, in every interleaving?
bool ordered(const Warp& warp, int lane, int other, uint32_t tick, uint32_t lanes) {
  if (other != warp.index) return tick <= warp.knows[other];
  if (tick < warp.synced || lanes == 1u << lane) return true;
  for (const auto& [when, mask] : warp.partial_syncs)
    if (tick < when && (mask >> lane & 1) && (lanes & ~mask & ~(1u << lane)) == 0) return true;
  return false;
}

std::string thread_name(int warp, uint32_t lanes) {
  char text[64];
  if (__builtin_popcount(lanes) == 1)
    snprintf(text, sizeof text, "warp %d lane %d", warp, __builtin_ctz(lanes));
  else
    snprintf(text, sizeof text, "warp %d lanes 0x%x", warp, lanes);
  return text;
}

void race(Warp& warp, const Instruction& i, int lane, const char* kind, uint32_t other_place, int other_warp, uint32_t other_lanes,
          const std::string& where) {
  warp.block->machine->findings.add(kind, i.place, int32_t(other_place),
                                    thread_name(warp.index, 1u << lane) + " and " + thread_name(other_warp, other_lanes) +
                                        " of block " + std::to_string(warp.block->index) + ", " + where);
}

// A finding that has one party.
void bad_access(Warp& warp, const Instruction& i, int lane, const char* kind, const std::string& where) {
  warp.block->machine->findings.add(kind, i.place, -1,
                                    thread_name(warp.index, 1u << lane) + " of block " + std::to_string(warp.block->index) + ", " + where);
}

}  // namespace

// ---- shared memory

static std::string shared_place(const Machine& machine, uint32_t address) {
  const SharedArray* before = nullptr;
  for (const SharedArray& array : machine.shared_arrays)
    if (array.base <= address) before = &array;
  if (before == nullptr) return "shared memory, of which there is none";
  const uint32_t byte = address - before->base;
  const std::string beyond = byte < before->bytes ? "" : ", which has " + std::to_string(before->bytes);
  return "byte " + std::to_string(byte) + " of " + before->name + beyond;
}

static void check_shared_lane(Warp& warp, const Instruction& i, int lane, uint32_t address, uint32_t bytes, Access access,
                              const uint8_t* values) {
  Machine& machine = *warp.block->machine;
  SharedShadow& shadow = machine.shadow;
  const uint16_t thread = uint16_t(warp.index * kLanes + lane);

  for (uint32_t byte = address; byte < address + bytes; byte++) {
    SharedCell& cell = shadow.cells[byte];
    const bool written = cell.tick >= shadow.base;
    const int writer_warp = cell.thread / kLanes;
    const uint32_t writer_lane = 1u << cell.thread % kLanes;

    if (written && cell.pending && !access.pending) {
      race(warp, i, lane, "cp.async data used before its wait", cell.place, writer_warp, writer_lane, shared_place(machine, byte));
      cell.pending = false;
    } else if (written && !(access.strong && cell.strong) && !ordered(warp, lane, writer_warp, cell.tick, writer_lane)) {
      // Triton has several lanes and warps store what they all hold: the same value is no race.
      const bool same_value = values != nullptr && machine.shared[byte] == values[byte - address];
      if (!same_value) {
        race(warp, i, lane, access.writes ? "shared-memory race: write after write" : "shared-memory race: read after write",
             cell.place, writer_warp, writer_lane, shared_place(machine, byte));
        cell.tick = warp.tick, cell.thread = thread;  // once is enough
      }
    }
    if (access.reads && !written) {
      bad_access(warp, i, lane, "read of shared memory that nobody wrote", shared_place(machine, byte));
      cell = SharedCell{};
      cell.tick = warp.tick, cell.thread = thread, cell.place = uint32_t(i.place);
    }
    if (access.writes) {
      for (Reader& reader : cell.reader) {
        if (reader.product && reader.tick >= shadow.base) {
          const uint32_t waited = warp.block->warps[reader.warp].products.waited(reader.tick);
          if (waited == 0 || (reader.warp != warp.index && waited > warp.knows[reader.warp]))
            race(warp, i, lane, waited == 0 ? "shared memory written while wgmma reads it" : "shared-memory race: write after read",
                 reader.place, reader.warp, reader.lanes, shared_place(machine, byte));
        } else if (reader.tick >= shadow.base && reader.lanes != 0 && !(access.strong && reader.strong)) {
          const uint32_t others = reader.warp == warp.index ? reader.lanes & ~(1u << lane) : reader.lanes;
          const bool same_instruction = reader.warp == warp.index && reader.tick == warp.tick;
          if (others != 0 && !same_instruction && !ordered(warp, lane, reader.warp, reader.tick, others))
            race(warp, i, lane, "shared-memory race: write after read", reader.place, reader.warp, others, shared_place(machine, byte));
        }
        reader = {};
      }
      cell.tick = warp.tick, cell.thread = thread, cell.place = uint32_t(i.place);
      cell.strong = access.strong, cell.pending = access.pending;
    } else {
      // Two readers are kept: the last, and the last of another warp.
      Reader& last = cell.reader[0];
      const bool again = last.warp == warp.index && !last.product && last.lanes != 0 && last.tick >= shadow.base && last.tick >= warp.synced;
      if (again) {
        last.lanes |= 1u << lane, last.strong &= access.strong;
      } else {
        if (last.warp != warp.index || last.product) cell.reader[1] = last;
        last.warp = uint16_t(warp.index), last.lanes = 1u << lane, last.strong = access.strong, last.product = false;
      }
      last.tick = warp.tick, last.place = uint32_t(i.place);
    }
  }
}

bool check_shared_product(Warp& warp, const Instruction& i, uint32_t at) {
  Machine& machine = *warp.block->machine;
  const auto is_within = [&](const SharedArray& one) { return at >= one.base && uint64_t(at - one.base) + 16 <= one.bytes; };
  if (std::none_of(machine.shared_arrays.begin(), machine.shared_arrays.end(), is_within)) {
    bad_access(warp, i, 0, "out of bounds", "16 bytes at " + shared_place(machine, at));
    return false;
  }
  if (!machine.launch->check) return true;
  SharedShadow& shadow = machine.shadow;
  const char* found = nullptr;
  for (uint32_t byte = at; byte < at + 16; byte++) {
    SharedCell& cell = shadow.cells[byte];
    const int writer = cell.thread / kLanes;
    const char* kind = nullptr;
    if (cell.tick < shadow.base) kind = "read of shared memory that nobody wrote";
    else if (cell.pending) kind = "cp.async data used before its wait";
    else if (writer == warp.index ? cell.tick >= warp.synced : cell.tick > warp.knows[writer])
      kind = "shared-memory race: read after write";
    else if (cell.tick > warp.products.fenced[writer])
      kind = "wgmma without fence.proxy.async after its shared memory was written";
    if (kind != nullptr && kind != found) {   // once for 16 bytes is enough
      if (cell.tick < shadow.base) bad_access(warp, i, 0, kind, shared_place(machine, byte));
      else race(warp, i, 0, kind, cell.place, writer, 1u << cell.thread % kLanes, shared_place(machine, byte));
      found = kind;
    }
    // A write that is ordered after this read is so after this warp's earlier ones too.
    if (cell.reader[0].warp != warp.index) cell.reader[1] = cell.reader[0];
    cell.reader[0] = Reader{warp.tick, kAllLanes, uint32_t(i.place), uint16_t(warp.index), false, true};
  }
  return true;
}

uint32_t check_shared(Warp& warp, const Instruction& i, uint32_t mask, const uint32_t* at, uint32_t bytes, Access access,
                      const uint8_t* values) {
  Machine& machine = *warp.block->machine;
  const SharedArray* array = nullptr;
  const auto within = [&](const SharedArray& one, uint32_t address) {
    return address >= one.base && uint64_t(address - one.base) + bytes <= one.bytes;
  };
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    const uint32_t address = at[lane];
    if (array == nullptr || !within(*array, address)) {
      array = nullptr;
      for (const SharedArray& one : machine.shared_arrays)
        if (within(one, address)) array = &one;
    }
    const char* kind = array == nullptr ? "out of bounds" : address % std::min(bytes, 16u) != 0 ? "misaligned access" : nullptr;
    if (kind == nullptr) continue;
    bad_access(warp, i, lane, kind, std::to_string(bytes) + " bytes at " + shared_place(machine, address));
    mask &= ~(1u << lane);
  }
  if (!machine.launch->check) return mask;
  warp.tick++;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    check_shared_lane(warp, i, lane, at[lane], bytes, access, values == nullptr ? nullptr : values + lane * bytes);
    if (values != nullptr) std::memcpy(&machine.shared[at[lane]], values + lane * bytes, bytes);  // the next lane may meet it
  }
  count_wavefronts(warp, i, mask, at, bytes);
  return mask;
}

void count_wavefronts(Warp& warp, const Instruction& i, uint32_t mask, const uint32_t* at, uint32_t bytes) {
  // A request of 8 bytes a lane goes by half warps, one of 16 by quarters; of each part, a wavefront takes a word from every bank.
  const int part = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
  LineCounts& line = warp.block->machine->counts.lines[i.place];
  line.shared_requests++;
  for (int first = 0; first < kLanes; first += part) {
    uint32_t words[64];
    int n = 0;
    for (int lane = first; lane < first + part; lane++)
      if (mask >> lane & 1)
        for (uint32_t word = at[lane] / 4; word <= (at[lane] + bytes - 1) / 4; word++) words[n++] = word;
    if (n == 0) continue;
    std::sort(words, words + n);
    n = int(std::unique(words, words + n) - words);
    int of_bank[32] = {}, most = 0;
    for (int w = 0; w < n; w++) most = std::max(most, ++of_bank[words[w] % 32]);
    line.wavefronts += most;
    line.ideal_wavefronts += (n + 31) / 32;
  }
}

void complete_copy(Warp& warp, const PendingCopy& copy, uint32_t lanes) {
  Machine& machine = *warp.block->machine;
  if (machine.launch->check) warp.tick++;
  for_lanes(lanes, [&](int lane) {
    std::memcpy(&machine.shared[copy.destination[lane]], copy.data[lane], copy.bytes);
    if (!machine.launch->check) return;
    for (uint32_t byte = copy.destination[lane]; byte < copy.destination[lane] + copy.bytes; byte++) {
      SharedCell& cell = machine.shadow.cells[byte];
      if (cell.thread == warp.index * kLanes + lane) cell.tick = warp.tick, cell.pending = false;
    }
  });
}

// ---- global memory

namespace {

struct PageLock {
  Page& page;
  explicit PageLock(Page& page) : page(page) {
    while (page.busy.test_and_set(std::memory_order_acquire)) {
    }
  }
  ~PageLock() { page.busy.clear(std::memory_order_release); }
};

void check_global_cell(Warp& warp, const Instruction& i, int lane, Region& region, GlobalCell& cell, uint64_t offset, Access access) {
  Machine& machine = *warp.block->machine;
  const uint32_t block = uint32_t(warp.block->index) + 1;
  auto where = [&] { return "byte " + std::to_string(offset) + " of " + region.name; };
  auto conflict = [&](const char* kind, uint32_t other_block, uint32_t other_place) {
    const std::string other = other_block == kManyBlocks ? "others" : std::to_string(other_block - 1);
    machine.findings.add(kind, i.place, int32_t(other_place),
                         "blocks " + std::to_string(warp.block->index) + " and " + other + ", " + where());
  };

  if (cell.write_block != 0 && !(access.strong && cell.write_strong)) {
    if (cell.write_block != block) {
      if (!known_before(warp, cell.write_block - 1, cell.write_thread / kLanes, cell.write_tick))
        conflict(access.writes ? "global race between blocks: write after write" : "global race between blocks: read after write",
                 cell.write_block, cell.write_place);
    } else if (!ordered(warp, lane, cell.write_thread / kLanes, cell.write_tick, 1u << cell.write_thread % kLanes)) {
      const bool same_instruction = cell.write_thread / kLanes == warp.index && cell.write_tick == warp.tick;
      if (!(access.writes && same_instruction))  // which of several lanes of one store wins is checked by value, see store_global
        race(warp, i, lane, access.writes ? "global race: write after write" : "global race: read after write", cell.write_place,
             cell.write_thread / kLanes, 1u << cell.write_thread % kLanes, where());
    }
  }
  if (access.writes) {
    if (cell.read_block != 0 && !(access.strong && cell.read_strong)) {
      const uint32_t others = cell.read_warp == warp.index ? cell.read_lanes & ~(1u << lane) : cell.read_lanes;
      if (cell.read_block == kManyBlocks ||
          (cell.read_block != block && !known_before(warp, cell.read_block - 1, cell.read_warp, cell.read_tick)))
        conflict("global race between blocks: write after read", cell.read_block, cell.read_place);
      else if (cell.read_block == block && others != 0 && !(cell.read_warp == warp.index && cell.read_tick == warp.tick) &&
               !ordered(warp, lane, cell.read_warp, cell.read_tick, others))
        race(warp, i, lane, "global race: write after read", cell.read_place, cell.read_warp, others, where());
    }
    cell.write_block = block, cell.write_tick = warp.tick, cell.write_place = uint32_t(i.place);
    cell.write_thread = uint16_t(warp.index * kLanes + lane), cell.write_strong = access.strong;
  } else if (cell.read_block != kManyBlocks) {
    cell.read_strong = access.strong && (cell.read_strong || cell.read_block == 0);
    if (cell.read_block != 0 && cell.read_block != block &&
        !known_before(warp, cell.read_block - 1, cell.read_warp, cell.read_tick)) {
      cell.read_block = kManyBlocks;
    } else if (cell.read_block == block && cell.read_warp == warp.index && cell.read_tick >= warp.synced) {
      cell.read_lanes |= 1u << lane, cell.read_tick = warp.tick;
    } else {
      cell.read_block = block, cell.read_warp = uint16_t(warp.index), cell.read_lanes = 1u << lane, cell.read_tick = warp.tick;
      cell.read_place = uint32_t(i.place);
    }
  }
}

}  // namespace

uint32_t check_global(Warp& warp, const Instruction& i, uint32_t mask, const uint64_t* at, uint32_t bytes, Access access,
                      uint32_t alignment) {
  Machine& machine = *warp.block->machine;
  if (alignment == 0) alignment = std::min(bytes, 16u);
  Region* of_lane[kLanes];
  Region* region = nullptr;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    if (region == nullptr || at[lane] - region->base + bytes > region->bytes) region = machine.memory->find(at[lane], bytes);
    of_lane[lane] = region;
    const char* kind = region == nullptr                                          ? "out of bounds"
                       : at[lane] % alignment != 0                                 ? "misaligned access"
                       : region->read_only && access.writes              ? "write to constant memory"
                                                                                  : nullptr;
    if (kind == nullptr) continue;
    bad_access(warp, i, lane, kind, std::to_string(bytes) + " bytes at " + machine.memory->nearest(at[lane]));
    mask &= ~(1u << lane);
  }
  if (!machine.launch->check || mask == 0) return mask;

  warp.tick++;
  uint64_t sectors[kLanes * 2];
  int n = 0;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    Region& of = *of_lane[lane];
    const uint64_t offset = at[lane] - of.base;
    for (uint64_t sector = at[lane] / 32; sector <= (at[lane] + bytes - 1) / 32; sector++) sectors[n++] = sector;
    if (of.written != nullptr) {
      for (uint64_t byte = offset; byte < offset + bytes; byte++) {
        if (access.reads && !of.written[byte]) {
          bad_access(warp, i, lane, "read of global memory that nobody wrote", "byte " + std::to_string(byte) + " of " + of.name);
          of.written[byte] = 1;
        }
        if (access.writes) of.written[byte] = 1;
      }
    }
    if (access.strong) strong_access(warp, at[lane], access.reads, access.writes, access.semantics);
    // An aligned access of up to 16 bytes lies in one page, for pages count from an aligned base.
    const uint64_t from_page = (of.base % kPageBytes) + offset;
    Page& page = of.page(from_page);
    PageLock lock(page);
    for (uint64_t e = from_page % kPageBytes / of.element; e <= (from_page % kPageBytes + bytes - 1) / of.element; e++)
      check_global_cell(warp, i, lane, of, page.cells[e], offset, access);
    for (uint64_t s = from_page % kPageBytes / 32; s <= (from_page % kPageBytes + bytes - 1) / 32; s++) {
      if (access.reads) page.read_sectors[s / 64] |= 1ull << s % 64;
      if (access.writes) page.written_sectors[s / 64] |= 1ull << s % 64;
    }
  }
  std::sort(sectors, sectors + n);
  const uint64_t distinct = uint64_t(std::unique(sectors, sectors + n) - sectors);

  uint64_t addresses[kLanes];
  int m = 0;
  for_lanes(mask, [&](int lane) { addresses[m++] = at[lane]; });
  std::sort(addresses, addresses + m);
  uint64_t needed = 0, end = 0;
  for (int a = 0; a < m; a++) {
    needed += addresses[a] + bytes - std::min(std::max(end, addresses[a]), addresses[a] + bytes);
    end = std::max(end, addresses[a] + bytes);
  }
  LineCounts& line = machine.counts.lines[i.place];
  line.requests++;
  line.sectors += distinct;
  line.ideal_sectors += (needed + 31) / 32;
  line.bytes += uint64_t(__builtin_popcount(mask)) * bytes;
  if (bytes == 16) machine.counts.wide_global++;
  if (access.reads && !access.writes) machine.counts.fetched_bytes += needed;
  if (access.reads && access.writes) line.atomics++;
  return mask;
}

}  // namespace ptxsim
