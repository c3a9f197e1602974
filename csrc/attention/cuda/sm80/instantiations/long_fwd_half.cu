#include "attention/cuda/sm80/long_fwd.cuh"

template void vdiff::attention::launch_long_fwd<vdiff::Half>(const SequenceAttentionFwd&, const FwdPlan&, cudaStream_t);
