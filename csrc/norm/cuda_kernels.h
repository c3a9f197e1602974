// The CUDA kernels of this folder that others launch, too. No torch, no STL.
#pragma once

#include "norm/params.h"

namespace vdiff {

// Into how many chunks a frame is cut: 1 or more.
int64_t channel_stats_chunks(const ChannelStatsParams& p);

// partials (B*T, chunks, C, 2) acc: scratch, unused where there is one chunk. stream is a cudaStream_t, as of all below.
void launch_channel_stats(const ChannelStatsParams& p, void* partials, void* stream);

namespace norms {

// A norm's table (rows, kFields, C) fp32: a row is of the frames that share one, and has of each channel
//   group        h = act((x - mean) * mul + add),   mul = rstd * weight * (1 + scale), add = bias * (1 + scale) + shift
//   layer, rms   h = act((x - m) * r * mul + add),  m, r of each pixel; rstd is 1
//   backward     dx = du * mul - of_one - (x - mean) * of_x,  of a group; du = dh * act'
enum Field { kMean, kMul, kAdd, kRstd, kOfOne, kOfX, kFields };

}  // namespace norms

// Of a pixel that is normalised by itself: what one block holds of it.
constexpr int64_t kMaxPixelChannels = 4096;

// Bytes of scratch that the plan of p has, at an address that 16 divides.
int64_t norm_act_fwd_scratch(const NormActParams& p);
int64_t norm_act_bwd_scratch(const NormActBackwardParams& p);

// The launches of that plan.
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

// The norm of x, as what applies it elsewhere takes it: a table, and of layer and rms norms mean and rstd of each pixel.
struct NormNumbers {
  int64_t table_floats, moments_floats;  // whole pieces of 16 bytes; 0: there are none
  int frames_of_row;
};

// out and residual are not looked at; nor is x but by the launch.
NormNumbers norm_numbers(const NormActParams& p);
void launch_norm_numbers(const NormActParams& p, float* table, float* moments, void* stream);

}  // namespace vdiff
