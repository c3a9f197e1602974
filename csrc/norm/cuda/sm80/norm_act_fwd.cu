#include "norm/cuda/sm80/norm_act_fwd.cuh"

#include "common/cuda/launch.cuh"
#include "norm/cuda_kernels.h"
#include "norm/cuda/sm80/norm_table.h"
#include "norm/cuda/to_images.cuh"

namespace vdiff {

using namespace norms;

int64_t norm_act_fwd_scratch(const NormActParams& p) { return fwd_plan(p).scratch_bytes; }

void launch_norm_act_fwd(const NormActParams& p, void* scratch, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const FwdPlan plan = fwd_plan(p);
  if (plan.out.shape.blocks == 0) return;
  auto* const table = static_cast<float*>(scratch);
  NormCall call = norm_call(p, plan.table, table);
  if (p.residual) call.other = image(p, p.residual, p.stride_residual);
  call.out = p.out;
  call.cut = plan.out.cut;
  launch_norm_table(p.norm, int(p.C), plan.table, table, cuda_stream);
  const ImageStrides& stride_residual = p.residual ? p.stride_residual : p.stride_x;
  const bool aligned = is_aligned(p, {p.x, p.residual, p.out}, {&p.stride_x, &stride_residual});
  dispatch_served(p.dtype, aligned, [&](auto type, auto is_aligned) {
    using T = typename decltype(type)::type;
    constexpr bool kAligned = decltype(is_aligned)::value;
    if (is_by_pixel(p.norm.kind)) {
      launch("norm_act_pixels_fwd_kernel", norm_act_pixels_fwd_kernel<T, kAligned>, plan.out.shape, cuda_stream, call);
    } else {
      launch("norm_act_channels_fwd_kernel", norm_act_channels_fwd_kernel<T, kAligned>, plan.out.shape, cuda_stream, call);
    }
  });
}

}  // namespace vdiff
