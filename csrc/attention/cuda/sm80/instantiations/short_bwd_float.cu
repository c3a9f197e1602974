#include "attention/cuda/sm80/short_bwd_launch.cuh"

template void vdiff::attention::launch_short_bwd<float>(const SequenceAttentionBwd&, void*, cudaStream_t);
template int64_t vdiff::attention::short_bwd_scratch<float>(const SequenceAttentionBwd&);
