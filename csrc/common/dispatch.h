// From a tensor's dtype to a C++ type.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "common/scalar.h"

namespace vdiff {

template <class T>
struct TypeTag {
  using type = T;
};

inline DType dtype_of(const torch::stable::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case torch::headeronly::ScalarType::Float:
      return DType::Float32;
    case torch::headeronly::ScalarType::Double:
      return DType::Float64;
    case torch::headeronly::ScalarType::Half:
      return DType::Float16;
    case torch::headeronly::ScalarType::BFloat16:
      return DType::BFloat16;
    default:
      STD_TORCH_CHECK(false, "vdiff_kernels: a tensor's dtype must be float32, float64, float16 or bfloat16");
  }
}

// body(TypeTag<T>{}) with T the storage type of dtype.
template <class Body>
auto dispatch(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::Float64:
      return body(TypeTag<double>{});
    case DType::Float16:
      return body(TypeTag<Half>{});
    case DType::BFloat16:
      return body(TypeTag<BFloat16>{});
    default:
      return body(TypeTag<float>{});
  }
}

inline torch::headeronly::ScalarType acc_scalar_type(const torch::stable::Tensor& tensor) {
  return dtype_of(tensor) == DType::Float64 ? torch::headeronly::ScalarType::Double
                                            : torch::headeronly::ScalarType::Float;
}

}  // namespace vdiff
