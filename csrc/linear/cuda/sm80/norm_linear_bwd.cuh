// norm_linear backward.                                                        contract: params.h, NormLinearBackwardParams
//
//   g = gate grad, rounded to T as it is read;  dh = g weight, then the norm's own backward (norm/cuda_kernels.h)
//   D = grad^T h of each clip, h computed again as it is read;  S = sum of grad over a clip's pixels
//   dweight = sum gate D;  dgate = sum weight D + bias S;  dbias = sum gate S;  dpos_emb = sum of dh
//   So no y is computed again for dgate: it is in D, which no gate has touched yet.
//
// norm_linear_dweight: D, in parts of k, which no clip shares with the next where there is a gate. 128 x 128 a block
//   grid   (tiles * parts of k, 1, 1)         cut by the shape alone (product_plan)
//   block, smem as norm_linear_fwd            both operands have a row for each k, a pixel
//   bytes  grad and x read, with the norm's numbers; dweight written, or parts of it of 4 bytes, which are read back
//   flops  2 C Co a pixel
//
// norm_linear_dh: g weight
//   grid, block, smem, flops the same         bytes  grad, weight and gate read, dh written: dx, where there is no norm
//
// pixel_sums (common/cuda): of grad, and of dh
//
// norm_linear_gates: where there is a gate
//   grid   (Co, 1, 1)                         block 256 threads, which have the channels of an output
//   bytes  the parts read, the second time from the caches, weight read; dweight, dgate, dbias written
//
//   acc    fp32; float by three products of tf32. Sums go part by part, in order: bit-equal in every run
//   limits M, C, Co < 2^30, checked by run.cpp; offsets are 64-bit
#pragma once

#include "common/cuda/pixel_sums.cuh"
#include "common/cuda/product_parts.cuh"
#include "linear/cuda/sm80/instantiations.h"
#include "linear/cuda/sm80/numbers.cuh"

namespace vdiff::linear {

// ---------------------------------------------------------------------------------------------------------------- products

template <class T>
struct Gradients {
  const T* grad;   // (M, Co)
  const T* other;  // (M, C): x; or (Co, C): weight
  Gated<T> gate;
  Numbers norm;
  int M, C, Co;
  int64_t stride_grad, stride_other;
  int grad_bytes, other_bytes;  // of one copy
  product::Parts<T> to;

  bool is_wide() const { return grad_bytes == 16 && other_bytes == 16; }
};

template <class T, int kWide, int kOf>
__global__ void __launch_bounds__(product::kThreads, product::kBlocks<kWide>) norm_linear_dweight_kernel(Gradients<T> p) {
  extern __shared__ __align__(16) char shared_memory[];
  product::Accumulators rC = {};
  {
    const product::PartPlace at(p.to, blockIdx.x);
    const int row = int(at.row), first = int(at.first);
    const product::RowsOfK<T> grad = {
        p.grad + at.first * p.stride_grad + row, p.stride_grad, p.Co - row, at.K, p.grad_bytes};
    const product::RowsOfK<T> x = {
        p.other + at.first * p.stride_other + at.column, p.stride_other, p.C - at.column, at.K, p.other_bytes};
    const int chunks = product::chunks_of<T>(at.K);
    if constexpr (kOf != kNothing) {
      const product::Changed<product::RowsOfK<T>, Normalised<T, kOf>> h = {{x}, {p.norm}, first, at.column};
      product::tile_product<T, kWide>(rC, shared_memory, grad, h, chunks);
    } else {
      product::tile_product<T, kWide>(rC, shared_memory, grad, x, chunks);
    }
  }
  product::finish();
  const product::PartPlace at(p.to, ptx::opaque(blockIdx.x));
  product::store_part(rC, shared_memory, p.to, at, [=](int64_t row) { return row < p.Co ? row : -1; });
}

template <class T, int kWide, int kGated>
__global__ void __launch_bounds__(product::kThreads, product::kBlocks<kWide>) norm_linear_dh_kernel(Gradients<T> p) {
  extern __shared__ __align__(16) char shared_memory[];
  product::Accumulators rC = {};
  {
    const product::PartPlace at(p.to, blockIdx.x);
    const int row = int(at.row), first = int(at.first);
    const product::RowsAlongK<T> grad = {
        p.grad + at.row * p.stride_grad + first, p.stride_grad, p.M - row, at.K, p.grad_bytes};
    const product::RowsOfK<T> weight = {
        p.other + at.first * p.stride_other + at.column, p.stride_other, p.C - at.column, at.K, p.other_bytes};
    const int chunks = product::chunks_of<T>(at.K);
    if constexpr (kGated) {
      const product::Changed<product::RowsAlongK<T>, Gated<T>> g = {{grad}, p.gate, row, first};
      product::tile_product<T, kWide>(rC, shared_memory, g, weight, chunks);
    } else {
      product::tile_product<T, kWide>(rC, shared_memory, grad, weight, chunks);
    }
  }
  product::finish();
  const product::PartPlace at(p.to, ptx::opaque(blockIdx.x));
  product::store_part(rC, shared_memory, p.to, at, [=](int64_t row) { return row < p.M ? row : -1; });
}

// ------------------------------------------------------------------------------------------------------------------- gates

template <class T>
struct GateGradients {
  const float* parts;  // (B, parts, Co, C): D
  const float* sums;   // (B, tables, Co): S; null: there is no bias
  const T* weight;
  const float* bias;
  const float* gate;
  T* dweight;    // null: not wanted, like dbias
  float* dgate;  // (B, Co)
  float* dbias;
  int B, C, Co, parts_of_clip, tables;
  int64_t stride_weight;
};

template <class T>
__global__ void __launch_bounds__(kThreads) norm_linear_gates_kernel(GateGradients<T> p) {
  __shared__ float warps[2 * kWarp];
  const Team team = this_block();
  const int co = blockIdx.x;
  const auto of_clip = [&](int b, int c) {
    const float* const first = p.parts + (int64_t(b) * p.parts_of_clip * p.Co + co) * p.C + c;
    float sum = 0;
    for (int i = 0; i < p.parts_of_clip; ++i) sum += first[int64_t(i) * p.Co * p.C];
    return sum;
  };
  // dgate = sum weight D + bias S; dbias = sum gate S
  float dbias = 0;
  for (int b = 0; b < p.B; ++b) {
    float dgate = 0, sum = 0;
    for (int c = team.rank; c < p.C; c += team.size) dgate += load_acc(p.weight + co * p.stride_weight + c) * of_clip(b, c);
    for (int i = team.rank; i < p.tables && p.sums; i += team.size) sum += p.sums[(int64_t(b) * p.tables + i) * p.Co + co];
    __syncthreads();  // what the clip before added up has been read
    dgate = sum_of_team(dgate, team, warps);
    sum = sum_of_team(sum, team, warps + kWarp);
    if (p.bias) dgate += p.bias[co] * sum;
    dbias += p.gate[int64_t(b) * p.Co + co] * sum;
    if (team.rank == 0) p.dgate[int64_t(b) * p.Co + co] = dgate;
  }
  if (team.rank == 0 && p.dbias) p.dbias[co] = dbias;
  // dweight = sum gate D
  for (int c = team.rank; c < p.C && p.dweight; c += team.size) {
    float sum = 0;
    for (int b = 0; b < p.B; ++b) sum += p.gate[int64_t(b) * p.Co + co] * of_clip(b, c);
    store_acc(p.dweight + int64_t(co) * p.C + c, sum);
  }
}

// ------------------------------------------------------------------------------------------------------------------- launch

template <class T>
void launch_bwd(const NormLinearBackwardParams& p, const BwdPlan& plan, void* scratch, cudaStream_t stream) {
  char* const bytes = static_cast<char*>(scratch);
  auto* const rest = reinterpret_cast<float*>(bytes + plan.rest);
  const auto width = [](const void* rows, int64_t count, int64_t stride, int64_t columns) {
    return product::copy_bytes(rows, count, stride, columns, sizeof(T));
  };
  Gradients<T> call = {};
  call.grad = static_cast<const T*>(p.grad);
  call.gate = {static_cast<const float*>(p.gate), Divisor(p.T * p.pixels()), int(p.Co)};
  call.M = int(p.M()), call.C = int(p.C), call.Co = int(p.Co);
  call.stride_grad = p.stride_grad;
  call.grad_bytes = width(p.grad, p.M(), p.stride_grad, p.Co);

  float* const parts = rest + ceil_div(plan.grad_sums.floats, 4) * 4;
  launch_pixel_sums<T>(p, plan.grad_sums, p.grad, even_strides(p, p.stride_grad), p.Co, p.dtype, rest, stream);
  product::launch_sum<float>(plan.dbias, rest, p.dbias, stream);
  if (plan.dweight.shape.threads > 0) {
    call.norm = launch_numbers(p, plan.numbers, scratch, stream);
    call.other = static_cast<const T*>(p.x);
    call.stride_other = p.stride_x;
    call.other_bytes = width(p.x, p.M(), p.stride_x, p.C);
    call.to = product::parts_of<T>(plan.dweight, p.dweight, parts, p.Co, p.C);
    if (p.gate != nullptr) call.to.parts = parts;
    product::dispatch_width(call.is_wide(), [&](auto wide) {
      dispatch_numbers(call.norm.of, [&](auto of) {
        const auto kernel = norm_linear_dweight_kernel<T, decltype(wide)::value, decltype(of)::value>;
        launch("norm_linear_dweight_kernel", kernel, plan.dweight.shape, stream, call);
      });
    });
    product::launch_sum<T>(plan.dweight_sum, parts, p.dweight, stream);
  }
  GateGradients<T> gates = {};
  gates.parts = parts, gates.sums = p.dbias == nullptr ? nullptr : rest;
  gates.weight = static_cast<const T*>(p.weight);
  gates.bias = static_cast<const float*>(p.bias);
  gates.gate = call.gate.gate;
  gates.dweight = static_cast<T*>(p.dweight);
  gates.dgate = static_cast<float*>(p.dgate), gates.dbias = static_cast<float*>(p.dbias);
  gates.B = int(p.B), gates.C = call.C, gates.Co = call.Co;
  gates.parts_of_clip = plan.dweight.parts_of_span, gates.tables = int(plan.grad_sums.runs * p.T);
  gates.stride_weight = p.stride_weight;
  launch("norm_linear_gates_kernel", norm_linear_gates_kernel<T>, plan.gates, stream, gates);
  if (!wants_x(p)) return;

  void* const dh = is_normed(p.norm.kind) ? bytes + plan.dh : p.dx;
  call.other = static_cast<const T*>(p.weight);
  call.stride_other = p.stride_weight;
  call.other_bytes = width(p.weight, p.Co, p.stride_weight, p.C);
  call.to = product::parts_of<T>(plan.dx, dh, rest, p.M(), p.C);
  product::dispatch_width(call.is_wide(), [&](auto wide) {
    constexpr int kWide = decltype(wide)::value;
    const auto kernel = p.gate != nullptr ? norm_linear_dh_kernel<T, kWide, 1> : norm_linear_dh_kernel<T, kWide, 0>;
    launch("norm_linear_dh_kernel", kernel, plan.dx.shape, stream, call);
  });
  product::launch_sum<T>(plan.dx.sum, rest, dh, stream);
  launch_pixel_sums<T>(p, plan.dh_sums, dh, even_strides(p, p.C), p.C, p.dtype, rest, stream);
  product::launch_sum<float>(plan.dpos_emb, rest, p.dpos_emb, stream);
  if (is_normed(p.norm.kind)) launch_norm_act_bwd(norm_backward_of(p, dh), rest, stream);
}

}  // namespace vdiff::linear
