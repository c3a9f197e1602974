// What a raw operator checks before it touches memory. The public functions say it better and earlier; these make a direct
// call to torch.ops.vdiff_kernels safe. Messages: "operator: argument has X; expected Y".
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <optional>
#include <sstream>
#include <string>

#include "common/scalar.h"

namespace vdiff {

using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline DType dtype_of(const Tensor& tensor) {
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

// The dtype that sums over this tensor's elements are kept in.
inline torch::headeronly::ScalarType acc_scalar_type(const Tensor& tensor) {
  return dtype_of(tensor) == DType::Float64 ? torch::headeronly::ScalarType::Double
                                            : torch::headeronly::ScalarType::Float;
}

template <class Sizes>
std::string shape_text(const Sizes& sizes) {
  std::ostringstream text;
  const char* separator = "(";
  for (const int64_t size : sizes) {
    text << separator << size;
    separator = ", ";
  }
  text << (sizes.size() == 0 ? "()" : ")");
  return text.str();
}

// CUDA kernels compute in float32.
inline void check_dtype_of_gpu(const char* op, const char* name, const Tensor& tensor) {
  STD_TORCH_CHECK(
      dtype_of(tensor) != DType::Float64, op, ": ", name, " is float64; expected float32, float16 or bfloat16 on a GPU");
}

inline void check_rank(const char* op, const char* name, const Tensor& tensor, int64_t rank) {
  STD_TORCH_CHECK(tensor.dim() == rank, op, ": ", name, " has rank ", tensor.dim(), "; expected ", rank);
}

// layout names the dimensions: "(B, T, C)".
inline void check_shape(
    const char* op, const char* name, const Tensor& tensor, const char* layout, std::initializer_list<int64_t> expected) {
  bool same = tensor.dim() == int64_t(expected.size());
  for (int64_t i = 0; same && i < tensor.dim(); ++i) same = tensor.size(i) == expected.begin()[i];
  STD_TORCH_CHECK(
      same, op, ": ", name, " has shape ", shape_text(tensor.sizes()), "; expected ", layout, " = ", shape_text(expected));
}

inline const char* dtype_text(torch::headeronly::ScalarType dtype) {
  switch (dtype) {
    case torch::headeronly::ScalarType::Float:
      return "float32";
    case torch::headeronly::ScalarType::Double:
      return "float64";
    case torch::headeronly::ScalarType::Half:
      return "float16";
    case torch::headeronly::ScalarType::BFloat16:
      return "bfloat16";
    case torch::headeronly::ScalarType::Bool:
      return "bool";
    default:
      return "another dtype";
  }
}

inline void check_dtype(const char* op, const char* name, const Tensor& tensor, const char* like_name, const Tensor& like) {
  STD_TORCH_CHECK(
      tensor.scalar_type() == like.scalar_type(), op, ": ", name, " has dtype ", dtype_text(tensor.scalar_type()), "; expected ",
      dtype_text(like.scalar_type()), ", as ", like_name);
}

inline std::string device_text(const Tensor& tensor) {
  return tensor.is_cuda() ? "cuda:" + std::to_string(tensor.get_device_index()) : tensor.is_cpu() ? "cpu" : "another device";
}

inline void check_device(const char* op, const char* name, const Tensor& tensor, const char* like_name, const Tensor& like) {
  STD_TORCH_CHECK(
      tensor.is_cuda() == like.is_cuda() && tensor.get_device_index() == like.get_device_index(), op, ": ", name, " is on ",
      device_text(tensor), "; expected ", device_text(like), ", as ", like_name);
}

inline void check_unit_stride(const char* op, const char* name, const Tensor& tensor) {
  const int64_t last = tensor.dim() - 1;
  STD_TORCH_CHECK(
      tensor.size(last) <= 1 || tensor.stride(last) == 1 || tensor.numel() == 0, op, ": ", name, " has stride ", tensor.stride(last),
      " in its innermost dimension; expected 1");
}

// An output of shape sizes, or of shape (0,) where it was not asked for.
inline Tensor new_acc(const Tensor& like, bool wanted, std::initializer_list<int64_t> sizes, bool zero = false) {
  const int64_t none[1] = {0};
  const auto shape = wanted ? torch::headeronly::IntHeaderOnlyArrayRef(sizes.begin(), sizes.size())
                            : torch::headeronly::IntHeaderOnlyArrayRef(none, 1);
  return zero ? torch::stable::new_zeros(like, shape, acc_scalar_type(like))
              : torch::stable::new_empty(like, shape, acc_scalar_type(like));
}

}  // namespace vdiff
