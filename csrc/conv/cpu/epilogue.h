// bias + temb, and the weight of the residual's mix, per frame. Shared by forward and backward. No torch, no STL.
#pragma once

#include "common/cpu/scratch.h"
#include "conv/params.h"

namespace vdiff {
inline namespace VDIFF_ISA {

template <class acc>
class Epilogue {
 public:
  Epilogue(const void* bias, const void* temb, const void* mix, const ConvSizes& s)
      : T_(s.T), Co_(s.Co), mix_(static_cast<const acc*>(mix)), offset_(s.B * s.T * s.Co) {
    for (int64_t i = 0; i < s.B * s.T * s.Co; ++i) {
      offset_[i] = (bias ? static_cast<const acc*>(bias)[i % s.Co] : 0) + (temb ? static_cast<const acc*>(temb)[i] : 0);
    }
  }

  const acc* offset(int64_t b, int64_t t) const { return offset_.get() + (b * T_ + t) * Co_; }  // (Co,)
  acc factor(int64_t b, int64_t t) const { return mix_ ? 1 - mix_[b * T_ + t] : 1; }            // of y in out

 private:
  int64_t T_, Co_;
  const acc* mix_;       // (B, T)
  Scratch<acc> offset_;  // (B, T, Co): bias + temb
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
