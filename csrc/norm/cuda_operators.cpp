#include "norm/cuda_operators.h"

#include <torch/csrc/stable/accelerator.h>

#include "common/stream.h"
#include "norm/arguments.h"
#include "norm/cuda_launch.h"

namespace vdiff {

Tensor channel_stats_cuda(const Tensor& x) {
  check_image("channel_stats_native", "x", x);
  const int64_t B = x.size(0), T = x.size(1), H = x.size(2), W = x.size(3), C = x.size(4);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  Tensor stats = new_acc(x, true, {B, T, C, 2});
  const ChannelStatsParams params = {
      x.const_data_ptr(), stats.mutable_data_ptr(), B, T, H, W, C, x.stride(0), x.stride(1), x.stride(2), x.stride(3),
      dtype_of(x)};
  const int64_t chunks = channel_stats_chunks(params);
  Tensor partials = new_acc(x, chunks > 1, {B * T, chunks, C, 2});
  launch_channel_stats(params, partials.mutable_data_ptr(), current_cuda_stream(x.get_device_index()));
  return stats;
}

}  // namespace vdiff
