// C's math by accumulator type. No torch, no STL: kernel units include this.
#pragma once

#include <math.h>

#include "common/cpu/isa.h"

namespace vdiff {
inline namespace VDIFF_ISA {

inline float exp_of(float x) { return expf(x); }
inline double exp_of(double x) { return exp(x); }
inline float cos_of(float x) { return cosf(x); }
inline double cos_of(double x) { return cos(x); }
inline float sin_of(float x) { return sinf(x); }
inline double sin_of(double x) { return sin(x); }

}  // namespace VDIFF_ISA
}  // namespace vdiff
