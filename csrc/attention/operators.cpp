// The torch side of attention: check, allocate, fill the params, dispatch, call the kernel.
#include "attention/operators.h"

#include "attention/arguments.h"
#include "attention/cpu_kernels.h"
#include "common/operands.h"
#ifdef VDIFF_WITH_CUDA
#include "attention/cuda/run.h"
#endif

namespace vdiff {
namespace {

constexpr char kQ[] = "(B, T, H, W, N, D)";

// ---------------------------------------------------------------------------------------------------------------- checks

// q's own, and what k and v share with it; their shapes are the caller's.
void check_qkv(const char* op, const Tensor& q, const Tensor& k, const Tensor& v) {
  check_rank(op, "q", q, 6);
  const int64_t D = q.size(5);
  STD_TORCH_CHECK(1 <= D && D <= kMaxHeadDim, op, ": q has D = ", D, "; expected 1 to ", kMaxHeadDim);
  if (q.is_cuda()) check_dtype_of_gpu(op, "q", q);
  check_unit_stride(op, "q", q);
  const auto check_like_q = [&](const char* name, const Tensor& tensor) {
    check_device(op, name, tensor, "q", q);
    check_dtype(op, name, tensor, "q", q);
    check_unit_stride(op, name, tensor);
  };
  check_like_q("k", k);
  check_like_q("v", v);
}

// As q in all but strides.
void check_like_q(const char* op, const char* name, const Tensor& tensor, const Tensor& q) {
  check_shape(op, name, tensor, kQ, {q.size(0), q.size(1), q.size(2), q.size(3), q.size(4), q.size(5)});
  check_device(op, name, tensor, "q", q);
  check_dtype(op, name, tensor, "q", q);
  check_unit_stride(op, name, tensor);
}

void check_lse(const char* op, const Tensor& lse, const Tensor& q) {
  check_shape(op, "lse", lse, "(B, T, H, W, N)", {q.size(0), q.size(1), q.size(2), q.size(3), q.size(4)});
  check_acc(op, "lse", lse, "q", q);
  STD_TORCH_CHECK(lse.is_contiguous(), op, ": lse is not contiguous; expected the one that the forward operator returned");
}

// ----------------------------------------------------------------------------------------------------- tensors to params

template <class Pointer>
PixelRows<Pointer> pixel_rows(Pointer data, const Tensor& tensor) {  // (B, T, H, W, N, D)
  return {data, tensor.stride(0), tensor.stride(1), tensor.stride(2), tensor.stride(3), tensor.stride(4)};
}

template <class Pointer>
PixelRows<Pointer> context_rows(Pointer data, const Tensor& tensor) {  // (B, S, N, D) or (B, T, S, N, D)
  const int64_t s = tensor.dim() - 3;
  return {data, tensor.stride(0), s == 1 ? 0 : tensor.stride(1), 0, tensor.stride(s), tensor.stride(s + 1)};
}

InputRows input_rows(const Tensor& tensor) {
  const void* data = tensor.const_data_ptr();
  return tensor.dim() == 6 ? pixel_rows(data, tensor) : context_rows(data, tensor);
}

OutputRows output_rows(const Tensor& tensor) {
  void* data = tensor.mutable_data_ptr();
  return tensor.dim() == 6 ? pixel_rows(data, tensor) : context_rows(data, tensor);
}

// ---------------------------------------------------------------------------------------------------------------- results

Tensor new_like(const Tensor& like) { return torch::stable::new_empty(like, like.sizes()); }

// out (B, T, H, W, N, D) and lse (B, T, H, W, N).
template <class Params>
std::tuple<Tensor, Tensor> new_results(const Tensor& q, bool return_lse, Params& params) {
  const Tensor out = new_like(q);
  const Tensor lse = new_acc(q, return_lse, {q.size(0), q.size(1), q.size(2), q.size(3), q.size(4)});
  params.out = output_rows(out);
  params.lse = wanted_pointer(lse, return_lse);
  return {out, lse};
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // dq, dk, dv, dbias

// packed: the first holds dq, dk and dv, (B, T, H, W, 3, N, D), and the next two are absent.
template <class Params>
Gradients new_gradients(
    const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias, const OptionalTensor& rel_bias,
    bool packed, bool need_bias_grad, Params& params) {
  const OptionalTensor& table = bias ? bias : rel_bias;
  const bool has_dbias = need_bias_grad && table;
  const Tensor none = new_acc(q, false, {});
  const Tensor dbias = has_dbias ? torch::stable::new_empty(q, table->sizes(), acc_scalar_type(q)) : none;
  params.dbias = wanted_pointer(dbias, has_dbias);
  if (!packed) {
    const Tensor dq = new_like(q), dk = new_like(k), dv = new_like(v);
    params.dq = output_rows(dq);
    params.dk = output_rows(dk);
    params.dv = output_rows(dv);
    return {dq, dk, dv, dbias};
  }
  const int64_t T = q.size(1), H = q.size(2), W = q.size(3), N = q.size(4), D = q.size(5);
  const int64_t sizes[7] = {q.size(0), T, H, W, 3, N, D};
  const Tensor dqkv = torch::stable::new_empty(q, torch::headeronly::IntHeaderOnlyArrayRef(sizes, 7));
  char* data = static_cast<char*>(dqkv.mutable_data_ptr());
  const int64_t pixel = 3 * N * D, third = N * D * int64_t(q.element_size());
  const OutputRows rows{data, T * H * W * pixel, H * W * pixel, W * pixel, pixel, D};
  params.dq = params.dk = params.dv = rows;
  params.dk.data = data + third;
  params.dv.data = data + 2 * third;
  return {dqkv, new_acc(q, false, {}), new_acc(q, false, {}), dbias};
}

// What the backward is given. Forward's out and lse are there where the kernels need them.
template <class Params>
void fill_incoming(
    const char* op, const Tensor& grad_out, const Tensor& q, const Tensor& k, const OptionalTensor& out, const OptionalTensor& lse,
    bool packed, Params& params) {
  check_like_q(op, "grad_out", grad_out, q);
  params.grad_out = input_rows(grad_out);
  if (packed) check_like_q(op, "packed k", k, q);
  if (out) {
    check_like_q(op, "out", *out, q);
    params.out = input_rows(*out);
  }
  if (lse) {
    check_lse(op, *lse, q);
    params.lse = lse->const_data_ptr();
  }
}

// --------------------------------------------------------------------------------------------------------------- temporal

void fill_temporal(
    const char* op, const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias,
    const OptionalTensor& rel_bias, double scale, bool causal, const OptionalTensor& focus_present,
    const OptionalTensor& rotary, TemporalAttentionParams& params) {
  check_qkv(op, q, k, v);
  check_rank(op, "k", k, 6);
  const int64_t B = q.size(0), T = q.size(1), H = q.size(2), W = q.size(3), N = q.size(4), D = q.size(5);
  const int64_t S = k.size(1);
  check_shape(op, "k", k, "(B, S, H, W, N, D)", {B, S, H, W, N, D});
  check_shape(op, "v", v, "(B, S, H, W, N, D)", {B, S, H, W, N, D});
  params.q = input_rows(q);
  params.k = input_rows(k);
  params.v = input_rows(v);
  params.B = B, params.T = T, params.S = S, params.H = H, params.W = W, params.N = N, params.D = D;
  params.dtype = dtype_of(q);
  fill_temporal_options(op, "q", q, {bias, rel_bias, scale, causal, focus_present, rotary}, params);
}

// ---------------------------------------------------------------------------------------------------------------- spatial

void fill_spatial(
    const char* op, const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias,
    const OptionalTensor& rel_bias, double scale, const OptionalTensor& key_mask, SpatialAttentionParams& params) {
  check_qkv(op, q, k, v);
  const int64_t B = q.size(0), T = q.size(1), H = q.size(2), W = q.size(3), N = q.size(4), D = q.size(5);
  const int64_t rank = k.dim();
  STD_TORCH_CHECK(4 <= rank && rank <= 6, op, ": k has rank ", rank, "; expected 6, or 4 or 5 for context");
  const bool context = rank != 6;
  const int64_t S = context ? k.size(rank - 3) : H * W;
  const auto check_source = [&](const char* name, const Tensor& tensor) {
    if (rank == 6) check_shape(op, name, tensor, kQ, {B, T, H, W, N, D});
    if (rank == 5) check_shape(op, name, tensor, "(B, T, S, N, D)", {B, T, S, N, D});
    if (rank == 4) check_shape(op, name, tensor, "(B, S, N, D)", {B, S, N, D});
  };
  check_source("k", k);
  check_source("v", v);
  STD_TORCH_CHECK(!context || !rel_bias, op, ": rel_bias is given with context k, v; expected bias (N, H*W, S) or none");
  params.q = input_rows(q);
  params.k = input_rows(k);
  params.v = input_rows(v);
  params.B = B, params.T = T, params.H = H, params.W = W, params.N = N, params.D = D;
  params.KH = context ? 1 : H;
  params.KW = context ? S : W;
  params.dtype = dtype_of(q);
  params.shared_context = rank == 4;
  fill_spatial_options(op, "q", q, {bias, rel_bias, scale}, params);
  if (!key_mask) return;
  STD_TORCH_CHECK(context, op, ": key_mask is given without context k, v; expected none");
  check_mask(op, "key_mask", *key_mask, "(B, S)", {B, S}, "q", q);
  params.key_mask = static_cast<const bool*>(key_mask->const_data_ptr());
  params.stride_mask_b = key_mask->stride(0);
  params.stride_mask_s = key_mask->stride(1);
}

// ------------------------------------------------------------------------------------------------------------------- runs

template <class Params>
void run(const char* op, const Tensor& q, const Params& params, void (*on_cpu)(const Params&)) {
#ifdef VDIFF_WITH_CUDA
  if (q.is_cuda()) return attention_cuda(op, q, params);
#endif
  on_cpu(params);
}

}  // namespace

// -------------------------------------------------------------------------------------------------------------- operators

std::tuple<Tensor, Tensor> temporal_attention(
    const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias, const OptionalTensor& rel_bias,
    double scale, bool causal, const OptionalTensor& focus_present, const OptionalTensor& rotary, bool return_lse) {
  const char* op = "temporal_attention_native";
  TemporalAttentionFwdParams params{};
  fill_temporal(op, q, k, v, bias, rel_bias, scale, causal, focus_present, rotary, params);
  const auto results = new_results(q, return_lse, params);
  run(op, q, params, cpu_temporal_attention);
  return results;
}

Gradients temporal_attention_backward(
    const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& out, const OptionalTensor& lse,
    const OptionalTensor& bias, const OptionalTensor& rel_bias, double scale, bool causal,
    const OptionalTensor& focus_present, const OptionalTensor& rotary, bool packed, bool need_bias_grad) {
  const char* op = "temporal_attention_native_backward";
  TemporalAttentionBwdParams params{};
  fill_temporal(op, q, k, v, bias, rel_bias, scale, causal, focus_present, rotary, params);
  fill_incoming(op, grad_out, q, k, out, lse, packed, params);
  const Gradients gradients = new_gradients(q, k, v, bias, rel_bias, packed, need_bias_grad, params);
  run(op, q, params, cpu_temporal_attention_backward);
  return gradients;
}

std::tuple<Tensor, Tensor> spatial_attention(
    const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias, const OptionalTensor& rel_bias,
    double scale, const OptionalTensor& key_mask, bool return_lse) {
  const char* op = "spatial_attention_native";
  SpatialAttentionFwdParams params{};
  fill_spatial(op, q, k, v, bias, rel_bias, scale, key_mask, params);
  const auto results = new_results(q, return_lse, params);
  run(op, q, params, cpu_spatial_attention);
  return results;
}

Gradients spatial_attention_backward(
    const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& out, const OptionalTensor& lse,
    const OptionalTensor& bias, const OptionalTensor& rel_bias, double scale, const OptionalTensor& key_mask, bool packed,
    bool need_bias_grad) {
  const char* op = "spatial_attention_native_backward";
  SpatialAttentionBwdParams params{};
  fill_spatial(op, q, k, v, bias, rel_bias, scale, key_mask, params);
  fill_incoming(op, grad_out, q, k, out, lse, packed, params);
  const Gradients gradients = new_gradients(q, k, v, bias, rel_bias, packed, need_bias_grad, params);
  run(op, q, params, cpu_spatial_attention_backward);
  return gradients;
}

}  // namespace vdiff
