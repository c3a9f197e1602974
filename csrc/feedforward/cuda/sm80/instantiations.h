// The launches of a plan's kernels, for each T; instantiations/ has a file for each dtype and direction.
#pragma once

#include "feedforward/cuda/plan.h"

namespace vdiff::feedforward {

template <class T>
void launch_fwd(const GegluParams& p, const GegluFwdPlan& plan, cudaStream_t stream);

// scratch: the plan's.
template <class T>
void launch_bwd(const GegluBackwardParams& p, const GegluBwdPlan& plan, void* scratch, cudaStream_t stream);

}  // namespace vdiff::feedforward
