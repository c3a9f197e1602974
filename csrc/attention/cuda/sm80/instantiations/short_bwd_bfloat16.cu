#include "attention/cuda/sm80/short_bwd.cuh"

template void vdiff::attention::launch_short_bwd<vdiff::BFloat16>(
    const SequenceAttentionBwd&, const BwdPlan&, void*, cudaStream_t);
