// The convolution operators of ops/conv/schema.py: norm_act_conv_native, norm_act_conv_native_backward.
#pragma once

#include <string>
#include <tuple>

#include "common/checks.h"

namespace vdiff {

// out (B, T, H, W, Co), out_stats (B, T, Co, 2)
std::tuple<Tensor, Tensor> norm_act_conv(
    const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const std::string& norm_kind,
    const OptionalTensor& norm_weight, const OptionalTensor& norm_bias, int64_t norm_groups, double norm_eps,
    const std::string& norm_scope, const OptionalTensor& norm_scale, const OptionalTensor& norm_shift, const std::string& act,
    const OptionalTensor& stats, const OptionalTensor& temb, const OptionalTensor& residual, const OptionalTensor& mix,
    bool return_stats);

// dx, dweight, dbias, dnorm_weight, dnorm_bias, dscale, dshift, dtemb, dmix
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> norm_act_conv_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const std::string& norm_kind,
    const OptionalTensor& norm_weight, const OptionalTensor& norm_bias, int64_t norm_groups, double norm_eps,
    const std::string& norm_scope, const OptionalTensor& norm_scale, const OptionalTensor& norm_shift, const std::string& act,
    const OptionalTensor& stats, const OptionalTensor& temb, const OptionalTensor& mix, bool need_x, bool need_weight,
    bool need_mix);

}  // namespace vdiff
