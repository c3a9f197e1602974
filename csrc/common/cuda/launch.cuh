// Checked launches, for .cu files. No torch.
#pragma once

#include "common/cuda/launch_shape.h"

namespace vdiff {

// Lets a block of the function, a kernel, have that much dynamic shared memory on the current device. Raises where that is
// refused, naming kernel, bytes and device.
void ask_for_shared_bytes(const char* kernel, const void* function, int64_t shared_bytes);

// Raises what the launch just made left behind, naming kernel, grid, block, dynamic shared memory and device.
void check_launch(const char* kernel, int64_t grid, int64_t block, int64_t shared_bytes);

// blocks as a grid along x; raises where x cannot hold them.
unsigned grid_x(const char* kernel, int64_t blocks);

// kernel<<<shape>>>(arguments...) on the stream. Nothing where there are no blocks. Raises.
template <class... Parameters, class... Arguments>
void launch(
    const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
    const Arguments&... arguments) {
  if (shape.blocks == 0) return;
  const unsigned grid = grid_x(name, shape.blocks);
  if (shape.shared_bytes > kSharedBytesOfAny) {
    ask_for_shared_bytes(name, reinterpret_cast<const void*>(kernel), shape.shared_bytes);
  }
  kernel<<<grid, shape.threads, shape.shared_bytes, stream>>>(arguments...);
  check_launch(name, grid, shape.threads, shape.shared_bytes);
}

}  // namespace vdiff
