#include "conv/cuda/sm80/weight_gradient.cuh"

namespace vdiff::convolution {

template void launch_dweight<Half>(const WeightCall&, const WeightPlan&, void*, int, cudaStream_t);

}  // namespace vdiff::convolution
