#include "norm/cuda/sm80/norm_act_bwd.cuh"

#include "common/cuda/launch.cuh"
#include "norm/cuda_kernels.h"
#include "norm/cuda/sm80/norm_table.h"
#include "norm/cuda/to_images.cuh"

namespace vdiff {

using namespace norms;

namespace {

// From sums to dx: of a group norm; of none, to dx alone.
template <class T, bool kAligned>
void launch_dx(
    const NormActBackwardParams& p, const BwdPlan& plan, NormCall call, const KnownSums& known, cudaStream_t stream) {
  const int64_t pixels = plan.table.frames_of_row * p.H * p.W;
  launch("norm_of_groups_kernel", norm_of_groups_kernel<>, plan.of_groups, stream, known.sums, known.table, int(p.C),
         plan.table.width, int(known.runs_of_row), float(pixels * plan.table.width));
  call.cut = plan.dx.cut;
  launch("norm_act_channels_dx_kernel", norm_act_channels_dx_kernel<T, kAligned>, plan.dx.shape, stream, call);
}

template <class T, bool kAligned>
void launch_kernels(
    const NormActBackwardParams& p, const BwdPlan& plan, NormCall call, const KnownSums& known, cudaStream_t stream) {
  if (is_by_pixel(p.norm.kind)) {
    call.cut = plan.dx.cut;
    launch("norm_act_pixels_bwd_kernel", norm_act_pixels_bwd_kernel<T, kAligned>, plan.dx.shape, stream, call);
    return;
  }
  call.cut = plan.sums.cut;
  launch("norm_act_sums_kernel", norm_act_sums_kernel<T, kAligned>, plan.sums.shape, stream, call);
  launch_dx<T, kAligned>(p, plan, call, known, stream);
}

NormCall bwd_call(const NormActBackwardParams& p, const BwdPlan& plan, const float* table) {
  NormCall call = norm_call(p, plan.table, table);
  call.other = image(p, p.grad, p.stride_grad);
  call.out = p.dx;
  return call;
}

bool is_aligned(const NormActBackwardParams& p) { return norms::is_aligned(p, {p.grad, p.x, p.dx}, {&p.stride_grad, &p.stride_x}); }

void launch_parameters(
    const NormActBackwardParams& p, const BwdPlan& plan, const float* sums, int64_t runs_of_clip, cudaStream_t stream) {
  launch("norm_act_parameters_kernel", norm_act_parameters_kernel<>, plan.parameters, stream, p, sums, runs_of_clip);
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
    NormCall call = bwd_call(p, plan, table);
    call.sums = plan.runs > 0 ? sums : nullptr;
    const KnownSums known = {table, sums, plan.table.frames_of_row * plan.runs, p.T * plan.runs};
    dispatch_served(p.dtype, is_aligned(p), [&](auto type, auto aligned) {
      launch_kernels<typename decltype(type)::type, decltype(aligned)::value>(p, plan, call, known, cuda_stream);
    });
  }
  launch_parameters(p, plan, sums, p.T * plan.runs, cuda_stream);
}

void launch_norm_act_bwd_of_sums(const NormActBackwardParams& p, const KnownSums& known, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const BwdPlan plan = bwd_plan(p);
  if (plan.dx.shape.blocks > 0) {
    NormCall call = bwd_call(p, plan, known.table);
    call.silu = false;
    dispatch_served(p.dtype, is_aligned(p), [&](auto type, auto aligned) {
      launch_dx<typename decltype(type)::type, decltype(aligned)::value>(p, plan, call, known, cuda_stream);
    });
  }
  launch_parameters(p, plan, known.sums, plan.dx.shape.blocks > 0 ? known.runs_of_clip : 0, cuda_stream);
}

}  // namespace vdiff
