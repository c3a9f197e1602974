#include "norm/cuda/run.h"

#include <torch/csrc/stable/accelerator.h>

#include "common/cuda/stream.h"
#include "norm/arguments.h"
#include "norm/cuda/sm80/channel_stats.h"

namespace vdiff {

Tensor channel_stats_cuda(const Tensor& x) {
  check_image("channel_stats_native", "x", x);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  Tensor stats = new_acc(x, true, {x.size(0), x.size(1), x.size(4), 2});
  const ChannelStatsParams params = channel_stats_params(x, stats);
  const int64_t chunks = channel_stats_chunks(params);
  Tensor partials = new_acc(x, chunks > 1, {params.B * params.T, chunks, params.C, 2});
  launch_channel_stats(params, partials.mutable_data_ptr(), current_cuda_stream(x.get_device_index()));
  return stats;
}

}  // namespace vdiff
