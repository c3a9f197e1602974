// The operators of ops/linear/schema.py: norm_linear_native, norm_linear_native_backward. They have CUDA kernels alone: on a CPU
// PyTorch's product behind norm_act is as good.
#pragma once

#include <string>
#include <tuple>

#include "common/checks.h"

namespace vdiff {

// gate * ((norm(x) + pos_emb) weight^T + bias) + residual, (B, T, H, W, Co), contiguous.
Tensor norm_linear(
    const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const std::string& norm_kind,
    const OptionalTensor& norm_weight, const OptionalTensor& norm_bias, int64_t norm_groups, double norm_eps,
    const std::string& norm_scope, const OptionalTensor& norm_scale, const OptionalTensor& norm_shift, const std::string& act,
    const OptionalTensor& stats, const OptionalTensor& pos_emb, const OptionalTensor& gate, const OptionalTensor& residual);

// dx, dweight, dbias, dgate, dpos_emb, dnorm_weight, dnorm_bias, dscale, dshift
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> norm_linear_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const std::string& norm_kind,
    const OptionalTensor& norm_weight, const OptionalTensor& norm_bias, int64_t norm_groups, double norm_eps,
    const std::string& norm_scope, const OptionalTensor& norm_scale, const OptionalTensor& norm_shift, const std::string& act,
    const OptionalTensor& stats, const OptionalTensor& pos_emb, const OptionalTensor& gate, bool need_x, bool need_weight);

}  // namespace vdiff
