// What is before what between blocks: a release (a fence, then an atomic or strong write) and an acquire of the same place (a
// strong read or atomic, then a fence) order all that came before the one before all that comes after the other: PTX ISA,
// "Memory Consistency Model", causality order. The scope of a fence or operation within one block orders nothing here.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace ptxsim {

struct Warp;

// By block: its accesses up to these ticks of each of its warps. None where the pointer is null.
using Clock = std::shared_ptr<const std::map<uint64_t, std::vector<uint32_t>>>;
Clock later_of(const Clock& a, const Clock& b);

// What a warp knows of other blocks, and what it has told them.
struct Causality {
  Clock known;      // is before all that it does from now on
  Clock seen;       // will be, after its next fence
  Clock released;   // was before its last fence
  void merge(const Causality& other);
};

enum class Semantics : uint8_t { Relaxed, Acquire, Release, AcquireRelease };
inline bool acquires(Semantics s) { return s == Semantics::Acquire || s == Semantics::AcquireRelease; }
inline bool releases(Semantics s) { return s == Semantics::Release || s == Semantics::AcquireRelease; }

// The clocks that places of global memory hold: those of the releases that their values carry.
class ReleasedPlaces {
 public:
  Clock at(uint64_t address);
  void add(uint64_t address, const Clock& clock);

 private:
  std::mutex mutex_;
  std::map<uint64_t, Clock> clocks_;
};

void fence(Warp& warp);
// A strong access (atomic, relaxed, volatile, acquire or release) of one lane to global memory.
void strong_access(Warp& warp, uint64_t address, bool reads, bool writes, Semantics semantics);
bool known_before(const Warp& warp, uint64_t block, int of_warp, uint32_t tick);

}  // namespace ptxsim
