// What every kernel launch checks. No torch.
#pragma once

#include <cstdint>

namespace vdiff {

// Raises what the launch just made left behind, naming kernel, grid, block, dynamic shared memory and device.
void check_launch(const char* kernel, int64_t grid, int64_t block, int64_t shared_bytes);

// blocks as a grid along x; raises where x cannot hold them.
unsigned grid_x(const char* kernel, int64_t blocks);

}  // namespace vdiff
