// How norm_linear runs on a GPU, decided here alone, by the shape alone: how products are cut into tiles and sums into parts, and
// what scratch there is. No CUDA header, no torch, no STL.
#pragma once

#include "common/cuda/pixel_sums_plan.h"
#include "common/cuda/product_plan.h"
#include "linear/params.h"
#include "norm/cuda_kernels.h"

namespace vdiff::linear {

using product::ProductPlan;
using product::SumPlan;
using product::TileGrid;

constexpr int kPositionFields = 3;  // of the table that has pos_emb in it: mean, mul, add
constexpr int kThreads = 256;       // of the kernels beside the products

// The norm of x, and of what it is.
template <class Params>
NormActParams norm_of(const Params& p) {
  NormActParams norm = {};
  norm.x = p.x;
  norm.B = p.B, norm.T = p.T, norm.H = p.H, norm.W = p.W, norm.C = p.C;
  norm.stride_x = even_strides(p, p.stride_x);
  norm.norm = p.norm;
  norm.dtype = p.dtype;
  return norm;
}

// What x is normalised by as it is read, in floats from the front of the scratch on: the norm's table, the moments of its pixels,
// and, where there is a pos_emb, the table that has it in it.
struct NumbersPlan {
  NormNumbers norm;
  int64_t positions;       // where that table begins
  LaunchShape positioned;  // no blocks: there is no pos_emb
  int64_t floats;          // of all
};

template <class Params>
NumbersPlan numbers_plan(const Params& p) {
  NumbersPlan plan{};
  plan.norm = norm_numbers(norm_of(p));
  plan.positions = plan.floats = plan.norm.table_floats + plan.norm.moments_floats;
  if (p.pos_emb == nullptr) return plan;
  const int64_t entries = p.B * p.T * p.C;
  plan.positioned = {ceil_div(entries, kThreads), kThreads, 0};
  plan.floats += ceil_div(kPositionFields * entries, 4) * 4;
  return plan;
}

struct FwdPlan {
  NumbersPlan numbers;
  TileGrid tiles;
  LaunchShape shape;
  int64_t scratch_bytes;
};

inline FwdPlan fwd_plan(const NormLinearParams& p) {
  FwdPlan plan{};
  plan.numbers = numbers_plan(p);
  plan.tiles = product::tiles_of(p.M(), p.Co);
  plan.shape = product::shape_of(plan.tiles.count());
  plan.scratch_bytes = plan.numbers.floats * int64_t(sizeof(float));
  return plan;
}

// ----------------------------------------------------------------------------------------------------------------- backward

// In the scratch: the numbers; dh, where a norm's backward takes it; then what is used up before the next is made: sums of grad
// and the parts of dweight; the parts of dx, or dpos_emb's sums; the norm's own.
struct BwdPlan {
  NumbersPlan numbers;
  PixelSumsPlan grad_sums;  // over pixels
  SumPlan dbias;            // no blocks: there is a gate, too, whose kernel adds them up
  ProductPlan dweight;      // where there is a gate, no part goes from one clip to the next
  LaunchShape gates;        // no blocks: there is no gate
  SumPlan dweight_sum;      // no blocks where gates has them
  ProductPlan dx;
  PixelSumsPlan dh_sums;
  SumPlan dpos_emb;
  int64_t dh, rest;  // where they begin, in bytes
  int64_t scratch_bytes;
};

// dx, or what is on the way to it: dx itself has no address where there are no pixels.
inline bool wants_x(const NormLinearBackwardParams& p) {
  return p.dx || p.dpos_emb || p.dnorm_weight || p.dnorm_bias || p.dscale || p.dshift;
}

inline bool is_normed(NormKind kind) { return kind != NormKind::None; }

inline NormActBackwardParams norm_backward_of(const NormLinearBackwardParams& p, const void* dh) {
  const NormActParams forward = norm_of(p);
  NormActBackwardParams norm = {};
  norm.grad = dh;
  norm.x = p.x;
  norm.dx = p.dx;
  norm.dweight = p.dnorm_weight, norm.dbias = p.dnorm_bias, norm.dscale = p.dscale, norm.dshift = p.dshift;
  norm.B = p.B, norm.T = p.T, norm.H = p.H, norm.W = p.W, norm.C = p.C;
  norm.stride_grad = even_strides(p, p.C);
  norm.stride_x = forward.stride_x;
  norm.norm = p.norm;
  norm.dtype = p.dtype;
  return norm;
}

inline BwdPlan bwd_plan(const NormLinearBackwardParams& p) {
  BwdPlan plan{};
  const int64_t float_bytes = sizeof(float);
  const bool normed = is_normed(p.norm.kind), has_gate = p.gate != nullptr;
  const auto whole_pieces = [](int64_t bytes) { return ceil_div(bytes, 16) * 16; };
  int64_t used_up = 0;
  if (p.dbias != nullptr) {
    plan.grad_sums = pixel_sums_plan(p, p.Co, p.dtype);
    if (!has_gate) plan.dbias = product::sum_plan(p.B * plan.grad_sums.runs * p.T, p.Co);
  }
  if (p.dweight != nullptr || has_gate) {
    plan.numbers = numbers_plan(p);
    plan.dweight = has_gate ? product::product_plan(p.Co, p.Co, p.C, p.T * p.pixels(), p.B)
                            : product::product_plan(p.Co, p.Co, p.C, p.M());
    if (has_gate) plan.gates = {p.Co, kThreads, 0};
    if (!has_gate) plan.dweight_sum = plan.dweight.sum;
    const int64_t parts = has_gate ? plan.dweight.parts_of_span * p.B : plan.dweight.sum.tables;
    used_up = (ceil_div(plan.grad_sums.floats, 4) * 4 + parts * p.Co * p.C) * float_bytes;
  } else {
    used_up = plan.grad_sums.floats * float_bytes;
  }
  plan.dh = whole_pieces(plan.numbers.floats * float_bytes);
  plan.rest = plan.dh;
  if (wants_x(p)) {
    plan.dx = product::product_plan(p.M(), p.M(), p.C, p.Co);
    if (normed) plan.rest += whole_pieces(p.M() * p.C * element_bytes(p.dtype));
    if (p.dpos_emb != nullptr) {
      plan.dh_sums = pixel_sums_plan(p, p.C, p.dtype);
      plan.dpos_emb = product::sum_plan(p.B * plan.dh_sums.runs, p.T * p.C);
    }
    used_up = max_of(used_up, plan.dx.sum.tables * plan.dx.sum.entries * float_bytes);
    used_up = max_of(used_up, plan.dh_sums.floats * float_bytes);
    if (normed) used_up = max_of(used_up, norm_act_bwd_scratch(norm_backward_of(p, nullptr)));
  }
  plan.scratch_bytes = plan.rest + used_up;
  return plan;
}

}  // namespace vdiff::linear
