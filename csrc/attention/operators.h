// The attention operators, for CPU and CUDA tensors, in the order of their schemas (vdiff_kernels/ops/attention/schema.py).
#pragma once

#include <tuple>

#include "common/checks.h"

namespace vdiff {

std::tuple<Tensor, Tensor> temporal_attention(
    const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias, const OptionalTensor& rel_bias,
    double scale, bool causal, const OptionalTensor& focus_present, const OptionalTensor& rotary, bool return_lse);

std::tuple<Tensor, Tensor, Tensor, Tensor> temporal_attention_backward(
    const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& out, const OptionalTensor& lse,
    const OptionalTensor& bias, const OptionalTensor& rel_bias, double scale, bool causal,
    const OptionalTensor& focus_present, const OptionalTensor& rotary, bool packed, bool need_bias_grad);

std::tuple<Tensor, Tensor> spatial_attention(
    const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias, const OptionalTensor& rel_bias,
    double scale, const OptionalTensor& key_mask, bool return_lse);

std::tuple<Tensor, Tensor, Tensor, Tensor> spatial_attention_backward(
    const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& out, const OptionalTensor& lse,
    const OptionalTensor& bias, const OptionalTensor& rel_bias, double scale, const OptionalTensor& key_mask, bool packed,
    bool need_bias_grad);

}  // namespace vdiff
