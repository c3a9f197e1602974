#include "attention/cuda/sm80/long_bwd_launch.cuh"

template void vdiff::attention::launch_long_bwd<vdiff::Half>(const SequenceAttentionBwd&, void*, cudaStream_t);
template int64_t vdiff::attention::long_bwd_scratch<vdiff::Half>(const SequenceAttentionBwd&);
