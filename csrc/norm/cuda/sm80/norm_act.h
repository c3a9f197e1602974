// The CUDA kernels of norm_act, as the torch side calls them. No torch, no STL.
#pragma once

#include "norm/params.h"

namespace vdiff {

// Bytes of scratch that the plan of p has, at an address that 16 divides.
int64_t norm_act_fwd_scratch(const NormActParams& p);
int64_t norm_act_bwd_scratch(const NormActBackwardParams& p);

// The launches of that plan. stream is a cudaStream_t.
void launch_norm_act_fwd(const NormActParams& p, void* scratch, void* stream);
void launch_norm_act_bwd(const NormActBackwardParams& p, void* scratch, void* stream);

// Of a group norm whose du, the gradient before the activation, is known, and the sums over pixels of du and of du * n.
struct KnownSums {
  float* table;        // of the norm, as norm_table makes it; more of it is written
  const float* sums;   // (runs of all frames, 2, C)
  int64_t runs_of_row;   // of the frames that share a row of the table
  int64_t runs_of_clip;
};

// p.grad: du.
void launch_norm_act_bwd_of_sums(const NormActBackwardParams& p, const KnownSums& known, void* stream);

}  // namespace vdiff
