// PyTorch's current CUDA stream, in a library that is not linked against a CUDA torch.
#pragma once

#include <cstdint>

namespace vdiff {

// A cudaStream_t. Raises where the torch that loaded us was built without CUDA.
void* current_cuda_stream(int32_t device_index);

}  // namespace vdiff

// Whether current_cuda_stream works here, for a test to ask (ctypes): 1 or 0.
extern "C" __attribute__((visibility("default"))) int vdiff_stream_function_found();
