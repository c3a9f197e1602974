// rotary_table: cosine and sine of every angle, once a call, for the attention kernels to read.
//
//   grid   (ceil(L * R/2 / kRotaryThreads), 1, 1)
//   block  kRotaryThreads threads             a thread an angle
//   exact  whole turns are taken off in double, so that the angle of any frame is as good as its float32 is
#pragma once

#include "attention/cuda/sm80/blocks.h"

namespace vdiff::attention {

// angles (L, R/2) fp32 in radians; table (L, R/2) cosine and sine.
template <class = void>
__global__ void __launch_bounds__(kRotaryThreads)
    rotary_table_kernel(const float* angles, float2* table, int64_t L, int64_t pairs, int64_t stride_l, int64_t stride_pair) {
  const int64_t index = int64_t(blockIdx.x) * kRotaryThreads + threadIdx.x;
  if (index >= L * pairs) return;
  const double turns = double(angles[index / pairs * stride_l + index % pairs * stride_pair]) * 0.15915494309189535;
  float2 entry;
  sincospif(2 * float(turns - rint(turns)), &entry.y, &entry.x);
  table[index] = entry;
}

}  // namespace vdiff::attention
