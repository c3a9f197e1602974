#include "attention/cuda/sm80/short_fwd.cuh"

template void vdiff::attention::launch_short_fwd<vdiff::BFloat16>(const SequenceAttentionFwd&, const FwdPlan&, cudaStream_t);
