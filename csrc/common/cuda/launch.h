// What every kernel launch asks for and checks. No torch.
#pragma once

#include <cstdint>

namespace vdiff {

// Lets a block of the function, a kernel, have that much dynamic shared memory on the current device. Raises where that is
// refused, naming kernel, bytes and device.
void ask_for_shared_bytes(const char* kernel, const void* function, int64_t shared_bytes);

// Raises what the launch just made left behind, naming kernel, grid, block, dynamic shared memory and device.
void check_launch(const char* kernel, int64_t grid, int64_t block, int64_t shared_bytes);

// blocks as a grid along x; raises where x cannot hold them.
unsigned grid_x(const char* kernel, int64_t blocks);

}  // namespace vdiff
