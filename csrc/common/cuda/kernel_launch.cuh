// A checked launch, for .cu files.
#pragma once

#include "common/cuda/launch.h"

namespace vdiff {

constexpr int64_t kSharedBytesOfAny = 48 << 10;   // what a kernel may have without asking
constexpr int64_t kLargestBlockBytes = 99 << 10;  // and what every GPU we build for can give a block

// kernel<<<blocks, threads, shared_bytes, stream>>>(arguments...), along x. Nothing where there are no blocks. Raises.
template <class... Parameters, class... Arguments>
void launch(
    const char* name, void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t shared_bytes, cudaStream_t stream,
    const Arguments&... arguments) {
  if (blocks == 0) return;
  const unsigned grid = grid_x(name, blocks);
  if (shared_bytes > kSharedBytesOfAny) ask_for_shared_bytes(name, reinterpret_cast<const void*>(kernel), shared_bytes);
  kernel<<<grid, threads, shared_bytes, stream>>>(arguments...);
  check_launch(name, grid, threads, shared_bytes);
}

}  // namespace vdiff
