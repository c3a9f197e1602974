// PyTorch's own thread pool, without a torch header, for kernel units.
#pragma once

#include <cstdint>

#include "common/isa.h"

namespace vdiff {

using RangeFunction = void (*)(int64_t begin, int64_t end, void* context);

// Calls function on ranges that cover [begin, end), each at least grain long but for the last. Rethrows what it throws.
void parallel_ranges(int64_t begin, int64_t end, int64_t grain, RangeFunction function, void* context);

inline namespace VDIFF_ISA {

// body(index) for every index in [begin, end). Which thread runs an index depends on the pool; what it computes must not.
template <class Body>
void parallel_for(int64_t begin, int64_t end, const Body& body) {
  parallel_ranges(
      begin, end, 1,
      [](int64_t first, int64_t last, void* context) {
        const Body& run = *static_cast<const Body*>(context);
        for (int64_t index = first; index < last; ++index) run(index);
      },
      const_cast<Body*>(&body));
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
