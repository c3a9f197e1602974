#include "linear/cuda/sm80/norm_linear_fwd.cuh"

template void vdiff::linear::launch_fwd<vdiff::Half>(const NormLinearParams&, const FwdPlan&, void*, cudaStream_t);
