// An accumulator to memory as the type there, on the device; load.cuh is the way back.
#pragma once

#include "common/cuda/ptx.cuh"

namespace vdiff {

__device__ inline void store_acc(float* to, float value) { *to = value; }
template <class T>
__device__ void store_acc(T* to, float value) {
  to->bits = uint16_t(ptx::pack<T>(value, value));
}

// Two neighbours, aligned to both.
__device__ inline void store_pair(float* to, float first, float second) { *reinterpret_cast<float2*>(to) = {first, second}; }
template <class T>
__device__ void store_pair(T* to, float first, float second) {
  *reinterpret_cast<uint32_t*>(to) = ptx::pack<T>(first, second);
}

}  // namespace vdiff
