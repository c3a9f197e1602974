// The cut and the launch of the kernels of short sequences.
#pragma once

#include "attention/cuda/sm80/short_launch.h"
#include "attention/cuda/sm80/short_sequences.cuh"
#include "common/cuda/kernel_launch.cuh"

namespace vdiff::attention {

constexpr int64_t kBlockBytes = 48 << 10;         // of shared memory, unless one warp needs more
constexpr int kMaxSequences = 4;                  // of a unit
constexpr int64_t kSector = 32;
constexpr int64_t kWarpsOfPartials = 4096;        // at most; no GPU that we build for runs as many of these warps at once

// body(IntTag<kRows>{}) with the fewest rows that hold queries and keys.
template <class Body>
void dispatch_rows(const SequenceAttention& p, const Body& body) {
  const int64_t longest = max_of(p.L, p.S);
  if (longest <= 8) return body(IntTag<8>{});
  if (longest <= 16) return body(IntTag<16>{});
  return body(IntTag<32>{});
}

// unit_bytes(count): shared memory of a warp.
template <class T, int kRows, class UnitBytes>
ShortPlan short_plan(const SequenceAttention& p, const UnitBytes& unit_bytes) {
  constexpr int kFewest = kRows == 8 ? 2 : 1;  // a tile's
  ShortPlan plan{};
  plan.count = kFewest;
  const auto is_whole_sectors = [&] { return plan.count * p.D * int64_t(sizeof(T)) % kSector == 0; };
  while (plan.count < kMaxSequences && !is_whole_sectors() && unit_bytes(2 * plan.count) <= kLargestBlockBytes) plan.count *= 2;
  plan.warps = int(max_of<int64_t>(1, min_of<int64_t>(kMaxWarps, kBlockBytes / unit_bytes(plan.count))));
  plan.units = ceil_div(p.sequences(), plan.count);
  plan.stride = plan.units;
  return plan;
}

}  // namespace vdiff::attention
