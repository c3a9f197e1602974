// From an operator to its launches, on PyTorch's current stream.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include "common/checks.h"
#include "common/cuda/launch_shape.h"
#include "common/cuda/stream.h"

namespace vdiff {

// launch(params, scratch, stream) on the device of `like`, with as much scratch as params need.
template <class Params>
void run_with_scratch(
    const Tensor& like, const Params& params, int64_t (*scratch_bytes)(const Params&), void (*launch)(const Params&, void*, void*)) {
  const torch::stable::accelerator::DeviceGuard guard(like.get_device_index());
  const int64_t floats[1] = {ceil_div(scratch_bytes(params), int64_t(sizeof(float)))};
  const Tensor scratch = torch::stable::new_empty(
      like, torch::headeronly::IntHeaderOnlyArrayRef(floats, 1), torch::headeronly::ScalarType::Float);
  launch(params, scratch.mutable_data_ptr(), current_cuda_stream(like.get_device_index()));
}

}  // namespace vdiff
