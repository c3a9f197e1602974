#include "conv/cuda/sm80/weight_gradient.cuh"

namespace vdiff::convolution {

template void launch_dweight<BFloat16>(const WeightCall&, const WeightPlan&, void*, int, cudaStream_t);

}  // namespace vdiff::convolution
