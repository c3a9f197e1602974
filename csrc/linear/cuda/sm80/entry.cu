#include "linear/cuda/sm80/entry.h"

#include "linear/cuda/plan.h"
#include "linear/cuda/sm80/instantiations.h"

namespace vdiff {

using namespace linear;

int64_t norm_linear_fwd_scratch(const NormLinearParams& p) { return fwd_plan(p).scratch_bytes; }
int64_t norm_linear_bwd_scratch(const NormLinearBackwardParams& p) { return bwd_plan(p).scratch_bytes; }

void launch_norm_linear_fwd(const NormLinearParams& p, void* scratch, void* stream) {
  const FwdPlan plan = fwd_plan(p);
  dispatch_served(p.dtype, [&](auto tag) {
    launch_fwd<typename decltype(tag)::type>(p, plan, scratch, static_cast<cudaStream_t>(stream));
  });
}

void launch_norm_linear_bwd(const NormLinearBackwardParams& p, void* scratch, void* stream) {
  const BwdPlan plan = bwd_plan(p);
  dispatch_served(p.dtype, [&](auto tag) {
    launch_bwd<typename decltype(tag)::type>(p, plan, scratch, static_cast<cudaStream_t>(stream));
  });
}

}  // namespace vdiff
