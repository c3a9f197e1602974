// The torch side of attention's options: from the schemas' arguments to the kernels' params. Shared by the operators and the
// layers; `like` is q or x, by name, whose device and dtype the options are held to.
#pragma once

#include "attention/params.h"
#include "common/operands.h"

namespace vdiff {

constexpr int64_t kMaxHeadDim = 256;

// In the schemas' order, by reference.
struct TemporalArguments {
  const OptionalTensor& bias;      // (N, T, S)
  const OptionalTensor& rel_bias;  // (N, T+S-1)
  double scale;
  bool causal;
  const OptionalTensor& focus_present;  // (B, T)
  const OptionalTensor& rotary;         // (T, R/2)
};
struct SpatialArguments {
  const OptionalTensor& bias;      // (N, H*W, S)
  const OptionalTensor& rel_bias;  // (N, 2H-1, 2W-1)
  double scale;
};

// The accumulators' dtype and like's device.
void check_acc(const char* op, const char* name, const Tensor& tensor, const char* like_name, const Tensor& like);

// A bool tensor of this shape on like's device.
void check_mask(
    const char* op, const char* name, const Tensor& mask, const char* layout, std::initializer_list<int64_t> shape,
    const char* like_name, const Tensor& like);

// params has its sizes; checks the arguments and fills in the rest.
void fill_temporal_options(
    const char* op, const char* like_name, const Tensor& like, const TemporalArguments& arguments, TemporalAttentionParams& params);
void fill_spatial_options(
    const char* op, const char* like_name, const Tensor& like, const SpatialArguments& arguments, SpatialAttentionParams& params);

}  // namespace vdiff
