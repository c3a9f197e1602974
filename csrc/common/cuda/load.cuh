// A value in memory as its accumulator type, on the device; scalar.h does the same on the host.
#pragma once

#include <cuda_fp16.h>

#include "common/scalar.h"

namespace vdiff {

__device__ inline float load_acc(const float* value) { return *value; }
__device__ inline double load_acc(const double* value) { return *value; }
__device__ inline float load_acc(const Half* value) { return __half2float(__ushort_as_half(value->bits)); }
__device__ inline float load_acc(const BFloat16* value) { return __uint_as_float(uint32_t(value->bits) << 16); }

}  // namespace vdiff
