#include "norm/cuda/sm80/norm_numbers.cuh"

#include "common/cuda/launch.cuh"
#include "norm/cuda/sm80/norm_table.h"
#include "norm/cuda/to_images.cuh"
#include "norm/cuda_kernels.h"

namespace vdiff {

using namespace norms;

NormNumbers norm_numbers(const NormActParams& p) {
  const TablePlan table = table_plan(p.norm, p.B, p.T, p.C);
  const int64_t moments = is_by_pixel(p.norm.kind) ? ceil_div(p.B * p.T * p.H * p.W, 2) * 4 : 0;
  return {table.floats, moments, table.frames_of_row};
}

void launch_norm_numbers(const NormActParams& p, float* table, float* moments, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const FwdPlan plan = fwd_plan(p);
  launch_norm_table(p.norm, int(p.C), plan.table, table, cuda_stream);
  if (!is_by_pixel(p.norm.kind)) return;
  NormCall call = norm_call(p, plan.table, table);
  call.cut = plan.out.cut;
  dispatch_served(p.dtype, is_aligned(p, {p.x}, {&p.stride_x}), [&](auto type, auto is_aligned) {
    using T = typename decltype(type)::type;
    launch("pixel_moments_kernel", pixel_moments_kernel<T, decltype(is_aligned)::value>, plan.out.shape, cuda_stream, call,
           reinterpret_cast<float2*>(moments));
  });
}

}  // namespace vdiff
