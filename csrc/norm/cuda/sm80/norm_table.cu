#include "norm/cuda/sm80/norm_table.h"

#include "common/cuda/launch.cuh"
#include "norm/cuda/sm80/norm_table.cuh"

namespace vdiff::norms {

void launch_norm_table(const NormParams& norm, int C, const TablePlan& plan, float* table, cudaStream_t stream) {
  launch("norm_table_kernel", norm_table_kernel<>, plan.shape, stream, norm, table, C, plan.width, plan.frames_of_row,
         plan.rows_of_clip);
}

}  // namespace vdiff::norms
