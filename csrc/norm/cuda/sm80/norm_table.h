// The launch of the table of a norm, which forward and backward have in front. For .cu files. No torch.
#pragma once

#include "norm/cuda/plan.h"

namespace vdiff::norms {

// table (plan.rows, kFields, C): mean, mul, add and rstd are written.
void launch_norm_table(const NormParams& norm, int C, const TablePlan& plan, float* table, cudaStream_t stream);

}  // namespace vdiff::norms
