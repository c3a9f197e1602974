// PyTorch's own thread pool, without a torch header, for kernel units.
#pragma once

#include <cstdint>

#include "common/cpu/isa.h"
#include "common/cpu/simd.h"
#include "common/scalar.h"

namespace vdiff {

using RangeFunction = void (*)(int64_t begin, int64_t end, void* context);

// Calls function on ranges that cover [begin, end), each at least grain long but for the last. Rethrows what it throws.
void parallel_ranges(int64_t begin, int64_t end, int64_t grain, RangeFunction function, void* context);

inline namespace VDIFF_ISA {

// Operations that take as long, about, as waking a thread does: the least that one is given.
constexpr int64_t kThreadOperations = 1 << 16;

// body(index) for every index in [begin, end). Which thread runs an index depends on the pool; what it computes must not.
// operations: about how many an index takes, so that little work stays with the caller.
template <class Body>
void parallel_for(int64_t begin, int64_t end, int64_t operations, const Body& body) {
  parallel_ranges(
      begin, end, max_of<int64_t>(1, kThreadOperations / max_of<int64_t>(1, operations)),
      [](int64_t first, int64_t last, void* context) {
        const Body& run = *static_cast<const Body*>(context);
        for (int64_t index = first; index < last; ++index) run(index);
        streaming_ends();
      },
      const_cast<Body*>(&body));
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
