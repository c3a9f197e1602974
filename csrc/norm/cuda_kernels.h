// The CUDA kernels of this folder that others launch, too. No torch, no STL.
#pragma once

#include "norm/params.h"

namespace vdiff {

// Of a pixel that is normalised by itself: what one block holds of it.
constexpr int64_t kMaxPixelChannels = 4096;

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

// What a product takes of the norm of its operand, which it applies itself: a table (rows, kNormFields, C), a row for the frames
// that share one, of which the first fields are mean, mul and add, h = (x - mean) * mul + add; and, of layer and rms norms, mean
// and rstd by pixel, h = (x - mean) * rstd * mul + add.
constexpr int kNormFields = 6;

struct NormNumbers {
  int64_t table_floats, moments_floats;  // whole pieces of 16 bytes; 0: there are none
  int frames_of_row;
};

// out and residual are not looked at; nor is x but by the launches.
NormNumbers norm_numbers(const NormActParams& p);
void launch_norm_numbers(const NormActParams& p, float* table, float* moments, void* stream);

}  // namespace vdiff
