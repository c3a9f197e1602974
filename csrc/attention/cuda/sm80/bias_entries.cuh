// Entries of a bias, of any dtype.
#pragma once

#include "attention/cuda/sequences.h"
#include "common/cuda/load.cuh"

namespace vdiff::attention {

// body(the entry (0, 0) of head 0, of its type)
template <class Body>
__device__ void with_entries(const BiasTable& bias, const Body& body) {
  switch (bias.dtype) {
    case DType::Float32:
      return body(static_cast<const float*>(bias.data));
    case DType::Float16:
      return body(static_cast<const Half*>(bias.data));
    case DType::BFloat16:
      return body(static_cast<const BFloat16*>(bias.data));
    default:
      return body(static_cast<const double*>(bias.data));
  }
}

__device__ inline float load_bias(const BiasTable& bias, int64_t offset) {
  float entry;
  with_entries(bias, [&](const auto* entries) { entry = float(load_acc(entries + offset)); });
  return entry;
}

}  // namespace vdiff::attention
