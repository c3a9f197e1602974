#include "conv/cuda/sm80/entry.h"

#include "common/cuda/launch.cuh"
#include "common/cuda/pixel_sums.cuh"
#include "conv/cuda/sm80/conv_sums.cuh"
#include "conv/cuda/sm80/instantiations.h"
#include "conv/cuda/to_planes.cuh"

namespace vdiff {

using namespace convolution;

namespace {

// The weight as the product reads it, packed into the scratch where it does not lie so.
PackedWeight packed_weight(
    const ConvWeight& weight, const ConvSizes& s, const PackPlan& plan, bool turned, DType dtype, void* to, cudaStream_t stream) {
  const int across = plane_shape(s).across, chunk = product::kChunkBytes / int(element_bytes(dtype));
  if (plan.shape.blocks == 0) {
    return {weight.data, weight.stride_co, weight.stride_row, weight.stride_column, across, chunk};
  }
  dispatch_served(dtype, [&](auto type) {
    launch_weight_pack<typename decltype(type)::type>(weight, s, plan, turned, to, stream);
  });
  const int64_t tap = (turned ? s.Ci : s.Co) * plan.K;
  return {to, plan.K, across * tap, tap, across, chunk};
}

ConvCall conv_call(const ConvSizes& s, const Operand& operand, const PackedWeight& weight, const ConvPlan& plan) {
  ConvCall call{weight, operand.x, operand.prologue};
  call.Ci = int(s.Ci), call.Co = int(s.Co);
  call.tiling = Tiling(plane_shape(s), plan.tiles);
  call.grid = plan.grid;
  return call;
}

void launch_conv(const ConvCall& call, Result result, const ConvSizes& s, const ConvPlan& plan, DType dtype, cudaStream_t stream) {
  dispatch_served(dtype, [&](auto type) {
    convolution::launch_conv<typename decltype(type)::type>(call, result, plane_shape(s).across, plan.shape, stream);
  });
}

class Backward {
 public:
  Backward(const NormActConvBackwardParams& p, void* scratch, void* stream)
      : p_(p), s_(p.sizes), plan_(bwd_plan(p)), scratch_(static_cast<char*>(scratch)), stream_(static_cast<cudaStream_t>(stream)) {}

  void run() const {
    Operand h{};
    if (plan_.has_operand) h = launch_operand(p_, plan_.operand, scratch_, stream_);
    if (p_.dmix) mix_gradient(h);
    if (p_.dweight) weight_gradient(h);
    if (p_.need_x) input_gradient(h);
    if (p_.dtemb || p_.dbias) vectors();
  }

 private:
  float* floats(int64_t at) const { return reinterpret_cast<float*>(scratch_ + at); }
  const float* mix() const { return static_cast<const float*>(p_.mix); }
  Planes grad() const { return planes(s_, p_.grad, p_.stride_grad, s_.Co, p_.dtype); }
  Prologue of_grad() const { return {nullptr, mix(), 1, false}; }

  void mix_gradient(const Operand& h) const {
    const PackedWeight weight = packed_weight(p_.weight, s_, plan_.pack, false, p_.dtype, scratch_ + plan_.at_weight, stream_);
    ConvCall call = conv_call(s_, h, weight, plan_.dot);
    call.bias = static_cast<const float*>(p_.bias);
    call.temb = static_cast<const float*>(p_.temb);
    call.other = grad();
    call.partials = floats(plan_.at_dots);
    launch_conv(call, Result::Dot, s_, plan_.dot, p_.dtype, stream_);
    launch("conv_dmix_kernel", conv_dmix_kernel<>, plan_.dmix, stream_, call.partials, static_cast<float*>(p_.dmix), call.tiling,
           call.grid.across);
  }

  void weight_gradient(const Operand& h) const {
    const WeightPlan& plan = plan_.dweight;
    const PlaneShape shape = plane_shape(s_);
    WeightCall call{};
    call.x = h.x, call.of_x = h.prologue;
    call.grad = grad(), call.of_grad = of_grad();
    call.parts = floats(plan_.at_parts);
    call.Ci = int(s_.Ci), call.Co = int(s_.Co), call.columns = int(plan.columns), call.planes = int(shape.planes);
    call.tiling = Tiling(shape, plan.tiles);
    call.grid = plan.grid;
    call.part = plan.part;
    dispatch_served(p_.dtype, [&](auto type) {
      launch_dweight<typename decltype(type)::type>(call, plan, p_.dweight, shape.across, stream_);
    });
  }

  // A convolution of dy with channels exchanged and taps turned around, then the norm's own backward.
  void input_gradient(const Operand& h) const {
    ConvSizes turned = s_;
    turned.Ci = s_.Co, turned.Co = s_.Ci;
    const bool has_norm = p_.norm.kind != NormKind::None;
    void* const out = has_norm ? scratch_ + plan_.at_dh : p_.dx;
    const PackedWeight weight = packed_weight(p_.weight, s_, plan_.turned, true, p_.dtype, scratch_ + plan_.at_turned, stream_);
    ConvCall call = conv_call(turned, {grad(), of_grad()}, weight, plan_.dh);
    call.out = contiguous_planes(turned, out, s_.Ci, p_.dtype);
    NormActBackwardParams norm = plan_.norm;
    norm.grad = out;
    if (plan_.way != Way::ThroughDu) {
      launch_conv(call, Result::Out, turned, plan_.dh, p_.dtype, stream_);
      if (plan_.way == Way::Apart) launch_norm_act_bwd(norm, scratch_ + plan_.at_norm, stream_);
      return;
    }
    call.other = planes(s_, p_.x, p_.stride_x, s_.Ci, p_.dtype);
    call.back = h.prologue;
    call.partials = has_norm ? floats(plan_.at_du_sums) : nullptr;
    dispatch_served(p_.dtype, [&](auto type) {
      launch_conv_du<typename decltype(type)::type>(call, plane_shape(s_).across, plan_.dh.shape, stream_);
    });
    if (!has_norm) return;
    const int64_t of_plane = plan_.dh.tiles.count(), of_clip = s_.temporal ? of_plane : s_.T * of_plane;
    launch_norm_act_bwd_of_sums(
        norm, {floats(plan_.operand.at_table), call.partials, p_.norm.clip ? of_clip : of_plane, of_clip}, stream_);
  }

  void vectors() const {
    dispatch_served(p_.dtype, [&](auto type) {
      launch_pixel_sums<typename decltype(type)::type>(
          s_, plan_.sums, p_.grad, p_.stride_grad, s_.Co, p_.dtype, floats(plan_.at_sums), stream_);
    });
    launch("conv_vectors_kernel", conv_vectors_kernel<>, plan_.vectors, stream_, floats(plan_.at_sums), mix(),
           static_cast<float*>(p_.dtemb), static_cast<float*>(p_.dbias), int(s_.B * s_.T), int(s_.T), int(plan_.sums.runs),
           int(s_.Co));
  }

  const NormActConvBackwardParams& p_;
  const ConvSizes& s_;
  BwdPlan plan_;
  char* scratch_;
  cudaStream_t stream_;
};

}  // namespace

int64_t norm_act_conv_fwd_scratch(const NormActConvParams& p) { return fwd_plan(p).scratch_bytes; }
int64_t norm_act_conv_bwd_scratch(const NormActConvBackwardParams& p) { return bwd_plan(p).scratch_bytes; }

void launch_norm_act_conv_fwd(const NormActConvParams& p, void* scratch, void* stream) {
  const FwdPlan plan = fwd_plan(p);
  if (plan.conv.shape.blocks == 0) return;
  auto* const at = static_cast<char*>(scratch);
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const ConvSizes& s = p.sizes;
  const Operand h = launch_operand(p, plan.operand, at, cuda_stream);
  const PackedWeight weight = packed_weight(p.weight, s, plan.pack, false, p.dtype, at + plan.at_weight, cuda_stream);
  ConvCall call = conv_call(s, h, weight, plan.conv);
  call.bias = static_cast<const float*>(p.bias);
  call.temb = static_cast<const float*>(p.temb);
  call.mix = static_cast<const float*>(p.mix);
  if (p.residual) call.other = planes(s, p.residual, p.stride_residual, s.Co, p.dtype);
  call.out = contiguous_planes(s, p.out, s.Co, p.dtype);
  call.partials = reinterpret_cast<float*>(at + plan.at_partials);
  launch_conv(call, plan.merge.blocks > 0 ? Result::OutAndStats : Result::Out, s, plan.conv, p.dtype, cuda_stream);
  launch("conv_stats_merge_kernel", conv_stats_merge_kernel<>, plan.merge, cuda_stream, call.partials,
         static_cast<float*>(p.out_stats), int(s.B * s.T), int(s.Co), int(s.H), int(s.W), plan.conv.tiles);
  if (plan.frames.B > 0) launch_channel_stats(plan.frames, at + plan.at_partials, stream);
}

void launch_norm_act_conv_bwd(const NormActConvBackwardParams& p, void* scratch, void* stream) {
  Backward(p, scratch, stream).run();
}

}  // namespace vdiff
