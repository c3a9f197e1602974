// The launches of a plan's kernels, for each T; instantiations/ has a file for each dtype, length and direction.
#pragma once

#include "attention/cuda/plan.h"
#include "attention/cuda/sequences.h"

namespace vdiff::attention {

template <class T>
void launch_short_fwd(const SequenceAttentionFwd& p, const FwdPlan& plan, cudaStream_t stream);

template <class T>
void launch_long_fwd(const SequenceAttentionFwd& p, const FwdPlan& plan, cudaStream_t stream);

// scratch: the plan's, from behind the table of angles on.
template <class T>
void launch_short_bwd(const SequenceAttentionBwd& p, const BwdPlan& plan, void* scratch, cudaStream_t stream);

template <class T>
void launch_long_bwd(const SequenceAttentionBwd& p, const BwdPlan& plan, void* scratch, cudaStream_t stream);

}  // namespace vdiff::attention
