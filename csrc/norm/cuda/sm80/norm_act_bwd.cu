#include "norm/cuda/sm80/norm_act_bwd.cuh"

#include "common/cuda/launch.cuh"
#include "norm/cuda_kernels.h"
#include "norm/cuda/sm80/norm_table.h"
#include "norm/cuda/to_images.cuh"

namespace vdiff {

using namespace norms;

namespace {

template <class T, bool kAligned>
void launch_kernels(const NormActBackwardParams& p, const BwdPlan& plan, NormCall call, float* table, cudaStream_t stream) {
  if (is_by_pixel(p.norm.kind)) {
    call.cut = plan.dx.cut;
    launch("norm_act_pixels_bwd_kernel", norm_act_pixels_bwd_kernel<T, kAligned>, plan.dx.shape, stream, call);
    return;
  }
  call.cut = plan.sums.cut;
  launch("norm_act_sums_kernel", norm_act_sums_kernel<T, kAligned>, plan.sums.shape, stream, call);
  const int64_t frames = plan.table.frames_of_row;
  launch("norm_of_groups_kernel", norm_of_groups_kernel<>, plan.of_groups, stream, call.sums, table, int(p.C), plan.table.width,
         int(frames * plan.runs), float(frames * p.H * p.W * plan.table.width));
  call.cut = plan.dx.cut;
  launch("norm_act_channels_dx_kernel", norm_act_channels_dx_kernel<T, kAligned>, plan.dx.shape, stream, call);
}

}  // namespace

int64_t norm_act_bwd_scratch(const NormActBackwardParams& p) { return bwd_plan(p).scratch_bytes; }

void launch_norm_act_bwd(const NormActBackwardParams& p, void* scratch, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const BwdPlan plan = bwd_plan(p);
  auto* const table = static_cast<float*>(scratch);
  float* const sums = table + plan.table.floats;
  launch_norm_table(p.norm, int(p.C), plan.table, table, cuda_stream);
  if (plan.dx.shape.blocks > 0) {
    NormCall call = norm_call(p, plan.table, table);
    call.other = image(p, p.grad, p.stride_grad);
    call.out = p.dx;
    call.sums = plan.runs > 0 ? sums : nullptr;
    const bool aligned = is_aligned(p, {p.grad, p.x, p.dx}, {&p.stride_grad, &p.stride_x});
    dispatch_served(p.dtype, aligned, [&](auto type, auto is_aligned) {
      launch_kernels<typename decltype(type)::type, decltype(is_aligned)::value>(p, plan, call, table, cuda_stream);
    });
  }
  launch("norm_act_parameters_kernel", norm_act_parameters_kernel<>, plan.parameters, cuda_stream, p, sums, p.T * plan.runs);
}

}  // namespace vdiff
