// Launches of the kernels of long sequences; instantiations/ has one file for each dtype and direction.
#pragma once

#include "attention/cuda/sequences.h"

namespace vdiff::attention {

template <class T>
void launch_long_fwd(const SequenceAttentionFwd& p, cudaStream_t stream);

// scratch: long_bwd_scratch<T>(p) bytes.
template <class T>
void launch_long_bwd(const SequenceAttentionBwd& p, void* scratch, cudaStream_t stream);

template <class T>
int64_t long_bwd_scratch(const SequenceAttentionBwd& p);

}  // namespace vdiff::attention
