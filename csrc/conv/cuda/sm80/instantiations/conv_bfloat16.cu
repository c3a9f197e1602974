#include "conv/cuda/sm80/conv.cuh"
#include "conv/cuda/sm80/weight_pack.cuh"

namespace vdiff::convolution {

template void launch_conv<BFloat16>(const ConvCall&, Result, int, const LaunchShape&, cudaStream_t);
template void launch_weight_pack<BFloat16>(const ConvWeight&, const ConvSizes&, const PackPlan&, bool, void*, cudaStream_t);

}  // namespace vdiff::convolution
