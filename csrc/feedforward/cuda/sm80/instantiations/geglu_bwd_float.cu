#include "feedforward/cuda/sm80/geglu_bwd.cuh"

template void vdiff::feedforward::launch_bwd<float>(const GegluBackwardParams&, const GegluBwdPlan&, void*, cudaStream_t);
