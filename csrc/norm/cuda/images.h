// norm_act as the CUDA kernels see it: images, and the norm as a table (cuda_kernels.h: Field). For .cu files.
// No torch.
#pragma once

#include "common/cuda/image.h"
#include "norm/cuda/plan.h"

namespace vdiff::norms {

struct NormCall {
  Image x, other;      // other: the residual, forward; the gradient of h, backward
  void* out;           // (B, T, H, W, C) contiguous: out, or dx
  const float* table;  // null: there is no norm
  float* sums;         // backward: (B*T, runs, 2, C), of du and of du * n, n what x is before mul; null: not wanted
  int C, frames, frames_of_clip, frames_of_row;  // channels, B*T, T, of a row of the table
  int pixels;                                    // of a frame
  Cut cut;
  float eps;
  bool silu, centred;

  __host__ __device__ const float* field(Field which, int frame) const {
    return table + (int64_t(frame / frames_of_row) * kFields + which) * C;
  }
};

}  // namespace vdiff::norms
