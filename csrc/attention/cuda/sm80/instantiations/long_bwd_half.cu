#include "attention/cuda/sm80/long_bwd.cuh"

template void vdiff::attention::launch_long_bwd<vdiff::Half>(
    const SequenceAttentionBwd&, const BwdPlan&, void*, cudaStream_t);
