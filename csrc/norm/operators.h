// The norm operators of ops/norm/schema.py: channel_stats_native, norm_act_native, norm_act_native_backward.
#pragma once

#include <string>
#include <tuple>

#include "common/checks.h"

namespace vdiff {

// x (B, T, H, W, C) -> (B, T, C, 2) acc: mean and biased variance over (H, W).
Tensor channel_stats(const Tensor& x);

// act(norm(x)) + residual, like x, contiguous.
Tensor norm_act(
    const Tensor& x, const std::string& norm_kind, const OptionalTensor& norm_weight, const OptionalTensor& norm_bias,
    int64_t norm_groups, double norm_eps, const std::string& norm_scope, const OptionalTensor& norm_scale,
    const OptionalTensor& norm_shift, const std::string& act, const OptionalTensor& stats, const OptionalTensor& residual);

// dx, dnorm_weight, dnorm_bias, dscale, dshift
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> norm_act_backward(
    const Tensor& grad_out, const Tensor& x, const std::string& norm_kind, const OptionalTensor& norm_weight,
    const OptionalTensor& norm_bias, int64_t norm_groups, double norm_eps, const std::string& norm_scope,
    const OptionalTensor& norm_scale, const OptionalTensor& norm_shift, const std::string& act, const OptionalTensor& stats);

}  // namespace vdiff
