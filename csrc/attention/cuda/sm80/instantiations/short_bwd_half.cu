#include "attention/cuda/sm80/short_bwd_launch.cuh"

template void vdiff::attention::launch_short_bwd<vdiff::Half>(const SequenceAttentionBwd&, void*, cudaStream_t);
template int64_t vdiff::attention::short_bwd_scratch<vdiff::Half>(const SequenceAttentionBwd&);
