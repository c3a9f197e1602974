#include "linear/cuda/sm80/norm_linear_bwd.cuh"

template void vdiff::linear::launch_bwd<vdiff::BFloat16>(const NormLinearBackwardParams&, const BwdPlan&, void*, cudaStream_t);
