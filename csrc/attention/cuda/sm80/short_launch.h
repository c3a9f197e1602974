// Launches of the kernels of short sequences; instantiations/ has one file for each dtype and direction.
#pragma once

#include "attention/cuda/sequences.h"

namespace vdiff::attention {

constexpr int64_t kMaxShort = 32;              // queries and keys of a sequence
constexpr int64_t kMaxShortTileBytes = 16384;  // of 16 or 32 rows: in either direction, a warp's tiles fit into shared memory

template <class T>
void launch_short_fwd(const SequenceAttentionFwd& p, cudaStream_t stream);

// scratch: short_bwd_scratch<T>(p) bytes, for the bias gradient.
template <class T>
void launch_short_bwd(const SequenceAttentionBwd& p, void* scratch, cudaStream_t stream);

template <class T>
int64_t short_bwd_scratch(const SequenceAttentionBwd& p);

}  // namespace vdiff::attention
