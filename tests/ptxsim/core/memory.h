// Memory as a kernel sees it: named regions of global memory, shared memory with its shadow, what was wrong and what was moved.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "causality.h"
#include "program.h"

namespace ptxsim {

struct Warp;
struct Instruction;
struct PendingCopy;

// ---- what was wrong

struct Finding {
  std::string kind, detail;
  int32_t place = -1, other = -1;   // instructions, the second of the other party
  uint64_t times = 1;
};

struct Findings {
  std::map<std::tuple<std::string, int32_t, int32_t>, Finding> all;
  void add(const char* kind, int32_t place, int32_t other, const std::string& detail);
  void merge(const Findings& findings);
};

// ---- what was moved

struct LineCounts {                   // of one memory instruction
  uint64_t requests = 0, sectors = 0, ideal_sectors = 0, bytes = 0;   // global
  uint64_t shared_requests = 0, wavefronts = 0, ideal_wavefronts = 0;
  uint64_t atomics = 0;
  void add(const LineCounts& other);
};

struct Counts {
  std::array<uint64_t, size_t(Class::Count)> instructions{};
  uint64_t mma_flops = 0, barriers = 0, warp_barriers = 0;
  uint64_t wide_global = 0;           // global requests of 16 bytes a lane
  uint64_t fetched_bytes = 0, latencies = 0;   // loaded from global memory; that warps waited, one after the other
  std::vector<LineCounts> lines;      // by instruction
  void add(const Counts& other);
};

// ---- global memory

// The last write of an element and its last read, with the block, the thread and the tick of each.
struct GlobalCell {
  uint32_t write_block = 0, write_tick = 0, write_place = 0;   // block + 1; 0: none
  uint16_t write_thread = 0;
  bool write_strong = false, read_strong = false;
  uint32_t read_block = 0, read_tick = 0, read_place = 0;      // block + 1; 0: none; kManyBlocks
  uint16_t read_warp = 0;
  uint32_t read_lanes = 0;
};
constexpr uint32_t kManyBlocks = 0xffffffffu;

constexpr uint64_t kPageBytes = 1 << 12;

struct Page {
  std::atomic_flag busy = ATOMIC_FLAG_INIT;
  std::unique_ptr<GlobalCell[]> cells;
  uint64_t read_sectors[kPageBytes / 32 / 64] = {}, written_sectors[kPageBytes / 32 / 64] = {};
};

struct Region {
  uint64_t base = 0, bytes = 0;
  std::string name;
  uint32_t element = 1;               // bytes that are written as one
  uint8_t* written = nullptr;         // a byte for each byte: 1 where it has been written. Null: all of it has
  bool read_only = false;
  uint64_t page_count = 0;            // pages are cut at multiples of their size of the address
  std::unique_ptr<std::atomic<Page*>[]> pages;

  Region(uint64_t base, uint64_t bytes, std::string name, uint32_t element, uint8_t* written, bool read_only);
  ~Region();
  Page& page(uint64_t from_page);     // of an offset counted from the first page
};

struct Memory {
  std::vector<std::unique_ptr<Region>> regions;   // by base
  std::vector<std::pair<uint64_t, uint64_t>> former;   // regions of earlier launches
  std::vector<std::string> former_names;
  ReleasedPlaces released;

  Region* find(uint64_t address, uint64_t bytes);
  std::string nearest(uint64_t address);          // in words, for a finding
  void unique_sectors(uint64_t& read, uint64_t& written);
};

// ---- shared memory

struct Reader {
  uint32_t tick = 0, lanes = 0, place = 0;
  uint16_t warp = 0;
  bool strong = false;
  bool product = false;               // wgmma, which goes on reading until its wait
};

struct SharedCell {
  uint32_t tick = 0, place = 0;       // of the last write
  uint16_t thread = 0;
  bool strong = false, pending = false;   // pending: a cp.async that no wait has completed
  Reader reader[2];
};

struct SharedShadow {
  std::vector<SharedCell> cells;
  uint32_t base = 1;                  // ticks below it are of an earlier block
};

// Address windows of the generic address space. Global addresses are those of the host.
constexpr uint64_t kSharedWindow = 0x7000000000000000ull, kLocalWindow = 0x7100000000000000ull, kWindowBytes = 1ull << 32;

enum class Space : uint8_t { Generic, Global, Shared, Local, Const, Param };

// How memory is accessed. Strong accesses (atomics, relaxed, volatile, acquire, release) do not race with each other.
struct Access {
  bool reads = false, writes = false, strong = false;
  bool pending = false;               // the write of a cp.async
  Semantics semantics = Semantics::Relaxed;
};
constexpr Access kRead{true, false}, kWrite{false, true}, kPendingWrite{false, true, false, true};

// Checks and counts an access of `mask` lanes to addresses `at` of one space; lanes that may not go through are left out of the
// mask that it returns. `values` are what a write stores, `bytes` of each lane, one lane after the other. `alignment`: of the
// addresses; 0: that of so many bytes.
uint32_t check_global(Warp& warp, const Instruction& i, uint32_t mask, const uint64_t* at, uint32_t bytes, Access access,
                      uint32_t alignment = 0);
uint32_t check_shared(Warp& warp, const Instruction& i, uint32_t mask, const uint32_t* at, uint32_t bytes, Access access,
                      const uint8_t* values);
// 16 bytes that the warp's wgmma reads until it is waited for. Returns whether they are there.
bool check_shared_product(Warp& warp, const Instruction& i, uint32_t at);
void count_wavefronts(Warp& warp, const Instruction& i, uint32_t mask, const uint32_t* at, uint32_t bytes);
void complete_copy(Warp& warp, const PendingCopy& copy, uint32_t lanes);

}  // namespace ptxsim
