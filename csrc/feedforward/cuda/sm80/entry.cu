#include "feedforward/cuda/sm80/entry.h"

#include "feedforward/cuda/plan.h"
#include "feedforward/cuda/sm80/instantiations.h"

namespace vdiff {

using namespace feedforward;

int64_t geglu_bwd_scratch(const GegluBackwardParams& p) { return bwd_plan(p).scratch_bytes; }

void launch_geglu_fwd(const GegluParams& p, void* stream) {
  const GegluFwdPlan plan = fwd_plan(p);
  dispatch_served(p.dtype, [&](auto tag) {
    launch_fwd<typename decltype(tag)::type>(p, plan, static_cast<cudaStream_t>(stream));
  });
}

void launch_geglu_bwd(const GegluBackwardParams& p, void* scratch, void* stream) {
  const GegluBwdPlan plan = bwd_plan(p);
  dispatch_served(p.dtype, [&](auto tag) {
    launch_bwd<typename decltype(tag)::type>(p, plan, scratch, static_cast<cudaStream_t>(stream));
  });
}

}  // namespace vdiff
