#include "attention/cuda/sm80/long_fwd_launch.cuh"

template void vdiff::attention::launch_long_fwd<vdiff::BFloat16>(const SequenceAttentionFwd&, cudaStream_t);
