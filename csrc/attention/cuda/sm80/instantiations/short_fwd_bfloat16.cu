#include "attention/cuda/sm80/short_fwd_launch.cuh"

template void vdiff::attention::launch_short_fwd<vdiff::BFloat16>(const SequenceAttentionFwd&, cudaStream_t);
