// From the operators' params to what the convolutions' kernels take, on the host.
#pragma once

#include "conv/cuda/planes.h"

namespace vdiff::convolution {

// The widest copy of 16 bytes, 4 or one element that goes by whole parts over the channels of each pixel.
inline int copy_bytes(const ConvSizes& s, const void* data, const ImageStrides& stride, int64_t channels, int element_bytes) {
  const auto fits = [&](int bytes) {
    const auto divides = [&](int64_t size, int64_t step) { return size <= 1 || step * element_bytes % bytes == 0; };
    return reinterpret_cast<uintptr_t>(data) % bytes == 0 && channels * element_bytes % bytes == 0 && divides(s.B, stride.b) &&
           divides(s.T, stride.t) && divides(s.H, stride.h) && divides(s.W, stride.w);
  };
  for (int bytes = 16; bytes > element_bytes; bytes /= 4) {
    if (fits(bytes)) return bytes;
  }
  return element_bytes;
}

inline Planes planes(const ConvSizes& s, const void* data, const ImageStrides& stride, int64_t channels, DType dtype) {
  Planes image{};
  image.data = data;
  image.stride_clip = stride.b;
  image.planes_of_clip = 1;
  image.bytes = copy_bytes(s, data, stride, channels, int(element_bytes(dtype)));
  if (s.temporal) {
    const bool even = s.H == 1 || stride.h == s.W * stride.w;
    image.stride_line = stride.t;
    image.columns = even ? RowLine(s.H * s.W, stride.w, 0) : RowLine(s.W, stride.w, stride.h);
  } else {
    image.planes_of_clip = int(s.T);
    image.stride_plane = stride.t;
    image.stride_line = stride.h;
    image.columns = RowLine(s.W, stride.w, 0);
  }
  return image;
}

inline Planes contiguous_planes(const ConvSizes& s, const void* data, int64_t channels, DType dtype) {
  return planes(s, data, even_strides(s, channels), channels, dtype);
}

// h = act(norm(x)), as a product takes it.
struct Operand {
  Planes x;
  Prologue prologue;
};

// Launches what comes before it.
template <class Params>
Operand launch_operand(const Params& p, const OperandPlan& plan, char* scratch, cudaStream_t stream) {
  const ConvSizes& s = p.sizes;
  if (plan.is_activated) {
    void* const h = scratch + plan.at_activated;
    launch_norm_act_fwd(activation(p, h), scratch + plan.at_norm, stream);
    return {contiguous_planes(s, h, s.Ci, p.dtype), {}};
  }
  auto* const table = reinterpret_cast<float*>(scratch + plan.at_table);
  launch_norm_numbers(activation(p, nullptr), table, nullptr, stream);
  const bool has_norm = plan.norm.table_floats > 0;
  return {planes(s, p.x, p.stride_x, s.Ci, p.dtype), {has_norm ? table : nullptr, nullptr, plan.norm.frames_of_row, p.norm.silu}};
}

}  // namespace vdiff::convolution
