#include "attention/cuda/sm80/short_fwd.cuh"

template void vdiff::attention::launch_short_fwd<float>(const SequenceAttentionFwd&, const FwdPlan&, cudaStream_t);
