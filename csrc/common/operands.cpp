#include "common/operands.h"

namespace vdiff {

void check_vector(
    const char* op, const char* name, const OptionalTensor& vector, const Tensor& x, const char* layout,
    std::initializer_list<int64_t> shape) {
  if (!vector.has_value()) return;
  check_shape(op, name, *vector, layout, shape);
  dtype_of(*vector);
  check_device(op, name, *vector, "x", x);
}

Tensor acc_contiguous(const Tensor& vector, const Tensor& like) {
  if (vector.scalar_type() == acc_scalar_type(like)) return torch::stable::contiguous(vector);
  return torch::stable::contiguous(torch::stable::to(vector, acc_scalar_type(like)));
}

OptionalTensor acc_contiguous(const OptionalTensor& vector, const Tensor& like) {
  return vector.has_value() ? OptionalTensor(acc_contiguous(*vector, like)) : std::nullopt;
}

const void* pointer_or_null(const OptionalTensor& tensor) {
  return tensor.has_value() ? tensor->const_data_ptr() : nullptr;
}

void* wanted_pointer(const Tensor& output, bool wanted) { return wanted ? output.mutable_data_ptr() : nullptr; }

}  // namespace vdiff
