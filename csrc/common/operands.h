// Small vector parameters (norm weights, biases) on their way from any dtype and strides to a kernel.
#pragma once

#include "common/checks.h"

namespace vdiff {

// Of this shape, floating, on x's device; any dtype and strides. An absent one passes.
void check_vector(
    const char* op, const char* name, const OptionalTensor& vector, const Tensor& x, const char* layout,
    std::initializer_list<int64_t> shape);

// The vector, contiguous and in like's accumulator dtype: itself or a copy.
Tensor acc_contiguous(const Tensor& vector, const Tensor& like);
OptionalTensor acc_contiguous(const OptionalTensor& vector, const Tensor& like);

const void* pointer_or_null(const OptionalTensor& tensor);

// Where to write an output: null for one that was not asked for, which has shape (0,).
void* wanted_pointer(const Tensor& output, bool wanted);

}  // namespace vdiff
