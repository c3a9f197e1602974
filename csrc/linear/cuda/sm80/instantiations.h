// The launches of a plan's kernels, for each T; instantiations/ has a file for each dtype and direction.
#pragma once

#include "linear/cuda/plan.h"

namespace vdiff::linear {

// scratch: the plan's.
template <class T>
void launch_fwd(const NormLinearParams& p, const FwdPlan& plan, void* scratch, cudaStream_t stream);
template <class T>
void launch_bwd(const NormLinearBackwardParams& p, const BwdPlan& plan, void* scratch, cudaStream_t stream);

}  // namespace vdiff::linear
