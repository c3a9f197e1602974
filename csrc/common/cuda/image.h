// A (B, T, H, W, C) tensor as kernels see it: frames of pixels, channels next to one another. For .cu files. No torch.
#pragma once

#include <initializer_list>

#include "common/cuda/row_line.h"
#include "common/cuda/shared_tile.h"
#include "common/dispatch.h"
#include "common/image_strides.h"

namespace vdiff {

struct Image {
  const void* data;  // null: there is none
  int64_t stride_b, stride_t;
  RowLine pixels;

  template <class T>
  __device__ const T* frame(int i, int frames_of_clip) const {
    return static_cast<const T*>(data) + i / frames_of_clip * stride_b + i % frames_of_clip * stride_t;
  }
};

// A tensor whose rows follow one another evenly is one long row.
template <class Sizes>
Image image(const Sizes& s, const void* data, const ImageStrides& stride) {
  const bool even = s.H == 1 || stride.h == s.W * stride.w;
  return {data, stride.b, stride.t, even ? RowLine(s.H * s.W, stride.w, 0) : RowLine(s.W, stride.w, stride.h)};
}

// Whether 16 divides the address of each pixel, and the bytes of its channels.
template <class Sizes>
bool is_aligned(
    const Sizes& s, int64_t channels, DType dtype, std::initializer_list<const void*> data,
    std::initializer_list<const ImageStrides*> strides) {
  const int64_t bytes = element_bytes(dtype);
  bool fits = channels * bytes % kPieceBytes == 0;
  for (const void* one : data) fits = fits && reinterpret_cast<uintptr_t>(one) % kPieceBytes == 0;
  const auto divides = [&](int64_t size, int64_t stride) { return size <= 1 || stride * bytes % kPieceBytes == 0; };
  for (const ImageStrides* at : strides) {
    fits = fits && divides(s.B, at->b) && divides(s.T, at->t) && divides(s.H, at->h) && divides(s.W, at->w);
  }
  return fits;
}

}  // namespace vdiff
