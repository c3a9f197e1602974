#include "conv/cuda/sm80/conv_du.cuh"

namespace vdiff::convolution {

template void launch_conv_du<float>(const ConvCall&, int, const LaunchShape&, cudaStream_t);

}  // namespace vdiff::convolution
