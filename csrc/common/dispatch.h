// From a dtype to a C++ type, and from a number to a constant. No torch, no STL: kernel units include this.
#pragma once

#include "common/scalar.h"

namespace vdiff {
inline namespace VDIFF_ISA {

template <class T>
struct TypeTag {
  using type = T;
};

template <int kValue>
struct IntTag {
  static constexpr int value = kValue;
};

// body(TypeTag<T>{}) with T the storage type of dtype.
template <class Body>
void dispatch(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::Float32:
      return body(TypeTag<float>{});
    case DType::Float64:
      return body(TypeTag<double>{});
    case DType::Float16:
      return body(TypeTag<Half>{});
    case DType::BFloat16:
      return body(TypeTag<BFloat16>{});
  }
}

// The same for the dtypes that have CUDA kernels; their operators let no other through.
template <class Body>
void dispatch_served(DType dtype, const Body& body) {
  if (dtype == DType::Float32) return body(TypeTag<float>{});
  if (dtype == DType::Float16) return body(TypeTag<Half>{});
  if (dtype == DType::BFloat16) return body(TypeTag<BFloat16>{});
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
