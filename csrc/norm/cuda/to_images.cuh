// From the operators' params to what the kernels of norm_act take, on the host.
#pragma once

#include "norm/cuda/images.h"
#include "norm/cuda/plan.h"

namespace vdiff::norms {

template <class Params>
bool is_aligned(const Params& p, std::initializer_list<const void*> data, std::initializer_list<const ImageStrides*> strides) {
  return vdiff::is_aligned(p, p.C, p.dtype, data, strides);
}

// All but the other image, and what is cut.
template <class Params>
NormCall norm_call(const Params& p, const TablePlan& plan, const float* table) {
  NormCall call{};
  call.x = image(p, p.x, p.stride_x);
  call.table = plan.shape.blocks == 0 ? nullptr : table;
  call.C = int(p.C);
  call.frames = int(p.B * p.T);
  call.frames_of_clip = int(p.T);
  call.frames_of_row = plan.frames_of_row;
  call.pixels = int(p.H * p.W);
  call.eps = float(p.norm.eps);
  call.silu = p.norm.silu;
  call.centred = p.norm.kind == NormKind::Layer;
  return call;
}

// body(TypeTag<T>{}, IntTag<aligned>{}) for the dtypes that have kernels; the operator lets no other through.
template <class Body>
void dispatch_served(DType dtype, bool aligned, const Body& body) {
  vdiff::dispatch_served(dtype, [&](auto type) { aligned ? body(type, IntTag<1>{}) : body(type, IntTag<0>{}); });
}

}  // namespace vdiff::norms
