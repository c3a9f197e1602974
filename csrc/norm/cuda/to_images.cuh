// From the operators' params to what the kernels of norm_act take, on the host.
#pragma once

#include <initializer_list>

#include "norm/cuda/images.h"
#include "norm/cuda/plan.h"

namespace vdiff::norms {

// A tensor whose rows follow one another evenly is one long row.
template <class Params>
Image image(const Params& p, const void* data, const ImageStrides& stride) {
  const bool even = p.H == 1 || stride.h == p.W * stride.w;
  return {data, stride.b, stride.t, even ? RowLine(p.H * p.W, stride.w, 0) : RowLine(p.W, stride.w, stride.h)};
}

// Whether 16 divides the address of each pixel, and the bytes of its channels.
template <class Params>
bool is_aligned(const Params& p, std::initializer_list<const void*> data, std::initializer_list<const ImageStrides*> strides) {
  const int64_t bytes = element_bytes(p.dtype);
  bool fits = p.C * bytes % kPieceBytes == 0;
  for (const void* one : data) fits = fits && reinterpret_cast<uintptr_t>(one) % kPieceBytes == 0;
  const auto divides = [&](int64_t size, int64_t stride) { return size <= 1 || stride * bytes % kPieceBytes == 0; };
  for (const ImageStrides* s : strides) {
    fits = fits && divides(p.B, s->b) && divides(p.T, s->t) && divides(p.H, s->h) && divides(p.W, s->w);
  }
  return fits;
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
