// The backward of long sequences: dq and delta, then dk and dv, then the bias gradient, each with what adds up its parts.
#pragma once

#include "attention/cuda/sm80/bias_tables.cuh"
#include "attention/cuda/sm80/instantiations.h"
#include "attention/cuda/sm80/long_bwd_bias.cuh"
#include "attention/cuda/sm80/long_bwd_dkdv.cuh"
#include "attention/cuda/sm80/long_bwd_dq.cuh"
#include "common/cuda/launch.cuh"

namespace vdiff::attention {

template <class T>
void launch_dq(const SequenceAttentionBwd& p, const BwdPlan& plan, float* delta, cudaStream_t stream) {
  dispatch_class(plan.dq.instance, [&](auto tag) {
    launch("long_attention_dq_kernel", long_attention_dq_kernel<T, decltype(tag)::value>, plan.dq.shape, stream, p, plan.dq.cut,
           delta);
  });
}

template <class T>
void launch_dkdv(const SequenceAttentionBwd& p, const BwdPlan& plan, const float* delta, float* partials, cudaStream_t stream) {
  dispatch_dkdv_class<T>(plan.dkdv.instance, [&](auto tag) {
    launch("long_attention_dkdv_kernel", long_attention_dkdv_kernel<T, decltype(tag)::value>, plan.dkdv.shape, stream, p,
           plan.dkdv.cut, delta, partials);
  });
  launch("long_merge_kernel", long_merge_kernel<T>, plan.merge, stream, p, plan.dkdv.cut, partials);
}

template <class T>
void launch_dbias(const SequenceAttentionBwd& p, const BwdPlan& plan, const float* delta, float* scratch, cudaStream_t stream) {
  float* const tables = plan.tables > 1 ? scratch : p.dbias.data;
  dispatch_dbias_class(plan.dbias.instance, [&](auto tag) {
    launch("long_attention_dbias_kernel", long_attention_dbias_kernel<T, decltype(tag)::value>, plan.dbias.shape, stream, p,
           plan.dbias.cut, delta, tables);
  });
  launch("bias_sum_kernel", bias_sum_kernel<>, plan.bias_sum, stream, tables, plan.tables, p.N * p.dbias.entries, p.dbias.data);
}

template <class T>
void launch_long_bwd(const SequenceAttentionBwd& p, const BwdPlan& plan, void* scratch, cudaStream_t stream) {
  auto* const delta = static_cast<float*>(scratch);
  float* const rest = delta + plan.delta_floats;
  launch_dq<T>(p, plan, delta, stream);
  launch_dkdv<T>(p, plan, delta, rest, stream);
  if (plan.tables > 0) launch_dbias<T>(p, plan, delta, rest, stream);
}

}  // namespace vdiff::attention
