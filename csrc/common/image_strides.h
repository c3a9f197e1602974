// No torch, no STL.
#pragma once

#include <cstdint>

namespace vdiff {

// Where pixel (b, t, h, w) of a (B, T, H, W, C) tensor starts: its outer strides.
struct ImageStrides {
  int64_t b, t, h, w;
  [[gnu::always_inline]] int64_t at(int64_t i_b, int64_t i_t, int64_t i_h, int64_t i_w) const {
    return i_b * b + i_t * t + i_h * h + i_w * w;
  }
};

// Of pixels at even steps of so many elements.
template <class Sizes>
ImageStrides even_strides(const Sizes& s, int64_t step) {
  return {s.T * s.H * s.W * step, s.H * s.W * step, s.W * step, step};
}

}  // namespace vdiff
