// The feed-forward operators of ops/feedforward/schema.py: geglu_native, geglu_native_backward.
#pragma once

#include <tuple>

#include "common/checks.h"

namespace vdiff {

// x (M, C), weight (2E, C), bias (2E,) -> (M, E)
Tensor geglu(const Tensor& x, const Tensor& weight, const OptionalTensor& bias);

// dx, dweight, dbias
std::tuple<Tensor, Tensor, Tensor> geglu_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& weight, const OptionalTensor& bias);

}  // namespace vdiff
