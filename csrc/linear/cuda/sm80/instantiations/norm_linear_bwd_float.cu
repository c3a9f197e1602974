#include "linear/cuda/sm80/norm_linear_bwd.cuh"

template void vdiff::linear::launch_bwd<float>(const NormLinearBackwardParams&, const BwdPlan&, void*, cudaStream_t);
