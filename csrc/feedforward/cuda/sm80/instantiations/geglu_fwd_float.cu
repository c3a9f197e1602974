#include "feedforward/cuda/sm80/geglu_fwd.cuh"

template void vdiff::feedforward::launch_fwd<float>(const GegluParams&, const GegluFwdPlan&, cudaStream_t);
