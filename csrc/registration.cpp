// The C++ implementation of every native operator; schemas and fakes are in schema.py of vdiff_kernels/ops/<family>.
#include <torch/csrc/stable/library.h>

#include "attention/layer_operators.h"
#include "attention/operators.h"
#include "conv/operators.h"
#include "feedforward/operators.h"
#include "linear/operators.h"
#include "norm/operators.h"

STABLE_TORCH_LIBRARY_IMPL(vdiff_kernels, CPU, m) {
  m.impl("temporal_attention_native", TORCH_BOX(&vdiff::temporal_attention));
  m.impl("temporal_attention_native_backward", TORCH_BOX(&vdiff::temporal_attention_backward));
  m.impl("spatial_attention_native", TORCH_BOX(&vdiff::spatial_attention));
  m.impl("spatial_attention_native_backward", TORCH_BOX(&vdiff::spatial_attention_backward));
  m.impl("temporal_layer_native", TORCH_BOX(&vdiff::temporal_layer));
  m.impl("temporal_layer_native_backward", TORCH_BOX(&vdiff::temporal_layer_backward));
  m.impl("spatial_layer_native", TORCH_BOX(&vdiff::spatial_layer));
  m.impl("spatial_layer_native_backward", TORCH_BOX(&vdiff::spatial_layer_backward));
  m.impl("channel_stats_native", TORCH_BOX(&vdiff::channel_stats));
  m.impl("norm_act_native", TORCH_BOX(&vdiff::norm_act));
  m.impl("norm_act_native_backward", TORCH_BOX(&vdiff::norm_act_backward));
  m.impl("norm_act_conv_native", TORCH_BOX(&vdiff::norm_act_conv));
  m.impl("norm_act_conv_native_backward", TORCH_BOX(&vdiff::norm_act_conv_backward));
  m.impl("geglu_native", TORCH_BOX(&vdiff::geglu));
  m.impl("geglu_native_backward", TORCH_BOX(&vdiff::geglu_backward));
}

#ifdef VDIFF_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(vdiff_kernels, CUDA, m) {
  m.impl("temporal_attention_native", TORCH_BOX(&vdiff::temporal_attention));
  m.impl("temporal_attention_native_backward", TORCH_BOX(&vdiff::temporal_attention_backward));
  m.impl("spatial_attention_native", TORCH_BOX(&vdiff::spatial_attention));
  m.impl("spatial_attention_native_backward", TORCH_BOX(&vdiff::spatial_attention_backward));
  m.impl("channel_stats_native", TORCH_BOX(&vdiff::channel_stats));
  m.impl("norm_act_native", TORCH_BOX(&vdiff::norm_act));
  m.impl("norm_act_native_backward", TORCH_BOX(&vdiff::norm_act_backward));
  m.impl("norm_act_conv_native", TORCH_BOX(&vdiff::norm_act_conv));
  m.impl("norm_act_conv_native_backward", TORCH_BOX(&vdiff::norm_act_conv_backward));
  m.impl("geglu_native", TORCH_BOX(&vdiff::geglu));
  m.impl("geglu_native_backward", TORCH_BOX(&vdiff::geglu_backward));
  m.impl("norm_linear_native", TORCH_BOX(&vdiff::norm_linear));
  m.impl("norm_linear_native_backward", TORCH_BOX(&vdiff::norm_linear_backward));
}
#endif
