#include "norm/cuda/run.h"

#include <torch/csrc/stable/accelerator.h>

#include "common/cuda/stream.h"
#include "norm/cuda/sm80/channel_stats.h"

namespace vdiff {

void channel_stats_cuda(const Tensor& x, const ChannelStatsParams& params) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const int64_t chunks = channel_stats_chunks(params);
  const Tensor partials = new_acc(x, chunks > 1, {params.B * params.T, chunks, params.C, 2});
  launch_channel_stats(params, partials.mutable_data_ptr(), current_cuda_stream(x.get_device_index()));
}

}  // namespace vdiff
