// The fused attention layers, on the CPU, in the order of their schemas (vdiff_kernels/ops/attention/schema.py).
#pragma once

#include <string>
#include <tuple>

#include "common/checks.h"

namespace vdiff {

// dx, dw_qkv, db_qkv, dw_out, db_out, dnorm_weight, dnorm_bias, dpos_emb, dbias
using LayerGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Tensor temporal_layer(
    const Tensor& x, const Tensor& w_qkv, const OptionalTensor& b_qkv, const Tensor& w_out, const OptionalTensor& b_out,
    int64_t num_heads, const std::string& norm_kind, const OptionalTensor& norm_weight, const OptionalTensor& norm_bias,
    double norm_eps, const OptionalTensor& pos_emb, const OptionalTensor& residual, const OptionalTensor& bias,
    const OptionalTensor& rel_bias, double scale, bool causal, const OptionalTensor& focus_present, const OptionalTensor& rotary);

LayerGradients temporal_layer_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& w_qkv, const OptionalTensor& b_qkv, const Tensor& w_out,
    const OptionalTensor& b_out, int64_t num_heads, const std::string& norm_kind, const OptionalTensor& norm_weight,
    const OptionalTensor& norm_bias, double norm_eps, const OptionalTensor& pos_emb, const OptionalTensor& bias,
    const OptionalTensor& rel_bias, double scale, bool causal, const OptionalTensor& focus_present, const OptionalTensor& rotary,
    bool residual_is_x, bool need_bias_grad);

Tensor spatial_layer(
    const Tensor& x, const Tensor& w_qkv, const OptionalTensor& b_qkv, const Tensor& w_out, const OptionalTensor& b_out,
    int64_t num_heads, const std::string& norm_kind, const OptionalTensor& norm_weight, const OptionalTensor& norm_bias,
    double norm_eps, const OptionalTensor& pos_emb, const OptionalTensor& residual, const OptionalTensor& bias,
    const OptionalTensor& rel_bias, double scale);

LayerGradients spatial_layer_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& w_qkv, const OptionalTensor& b_qkv, const Tensor& w_out,
    const OptionalTensor& b_out, int64_t num_heads, const std::string& norm_kind, const OptionalTensor& norm_weight,
    const OptionalTensor& norm_bias, double norm_eps, const OptionalTensor& pos_emb, const OptionalTensor& bias,
    const OptionalTensor& rel_bias, double scale, bool residual_is_x, bool need_bias_grad);

}  // namespace vdiff
