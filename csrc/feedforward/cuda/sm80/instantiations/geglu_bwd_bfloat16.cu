#include "feedforward/cuda/sm80/geglu_bwd.cuh"

template void vdiff::feedforward::launch_bwd<vdiff::BFloat16>(const GegluBackwardParams&, const GegluBwdPlan&, void*, cudaStream_t);
