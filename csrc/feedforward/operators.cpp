#include "feedforward/operators.h"

#include "common/operands.h"
#include "feedforward/cpu_kernels.h"
#ifdef VDIFF_WITH_CUDA
#include "feedforward/cuda/run.h"
#endif

namespace vdiff {

static void check_operands(const char* op, const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  check_rank(op, "x", x, 2);
  dtype_of(x);
  check_unit_stride(op, "x", x);
  check_rank(op, "weight", weight, 2);
  STD_TORCH_CHECK(weight.size(0) % 2 == 0, op, ": weight has ", weight.size(0), " rows; expected an even number, 2E");
  check_shape(op, "weight", weight, "(2E, C)", {weight.size(0), x.size(1)});
  check_dtype(op, "weight", weight, "x", x);
  check_device(op, "weight", weight, "x", x);
  check_vector(op, "bias", bias, x, "(2E,)", {weight.size(0)});
}

Tensor geglu(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  const char* op = "geglu_native";
  check_operands(op, x, weight, bias);
  const int64_t M = x.size(0), C = x.size(1), E = weight.size(0) / 2;
  const OptionalTensor acc_bias = acc_contiguous(bias, x);
  Tensor out = torch::stable::new_empty(x, {M, E});
  const GegluParams params = {
      x.const_data_ptr(), weight.const_data_ptr(), pointer_or_null(acc_bias), out.mutable_data_ptr(), M, C, E,
      x.stride(0), weight.stride(0), weight.stride(1), dtype_of(x)};
#ifdef VDIFF_WITH_CUDA
  if (x.is_cuda()) {
    geglu_cuda(op, x, weight, params);
    return out;
  }
#endif
  cpu_geglu(params);
  return out;
}

std::tuple<Tensor, Tensor, Tensor> geglu_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  const char* op = "geglu_native_backward";
  check_operands(op, x, weight, bias);
  const int64_t M = x.size(0), C = x.size(1), E = weight.size(0) / 2;
  check_shape(op, "grad_out", grad_out, "(M, E)", {M, E});
  check_dtype(op, "grad_out", grad_out, "x", x);
  check_device(op, "grad_out", grad_out, "x", x);
  check_unit_stride(op, "grad_out", grad_out);
  const OptionalTensor acc_bias = acc_contiguous(bias, x);

  Tensor dx = torch::stable::new_empty(x, {M, C});
  Tensor dweight = torch::stable::new_empty(weight, weight.sizes());
  Tensor dbias = new_acc(x, bias.has_value(), {2 * E});
  GegluBackwardParams params = {};
  params.grad = grad_out.const_data_ptr();
  params.x = x.const_data_ptr();
  params.weight = weight.const_data_ptr();
  params.bias = pointer_or_null(acc_bias);
  params.dx = dx.mutable_data_ptr();
  params.dweight = dweight.mutable_data_ptr();
  params.dbias = wanted_pointer(dbias, bias.has_value());
  params.M = M, params.C = C, params.E = E;
  params.stride_grad = grad_out.stride(0);
  params.stride_x = x.stride(0);
  params.stride_weight_e = weight.stride(0);
  params.stride_weight_c = weight.stride(1);
  params.dtype = dtype_of(x);
#ifdef VDIFF_WITH_CUDA
  if (x.is_cuda()) {
    geglu_cuda(op, x, weight, params);
    return {dx, dweight, dbias};
  }
#endif
  cpu_geglu_backward(params);
  return {dx, dweight, dbias};
}

}  // namespace vdiff
