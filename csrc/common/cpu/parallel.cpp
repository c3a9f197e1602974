#include "common/cpu/parallel.h"

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/shim_utils.h>

namespace vdiff {

void parallel_ranges(int64_t begin, int64_t end, int64_t grain, RangeFunction function, void* context) {
  if (begin >= end) return;
  TORCH_ERROR_CODE_CHECK(torch_parallel_for(begin, end, grain, function, context));
}

}  // namespace vdiff
