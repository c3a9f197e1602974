// How a kernel is launched, as plans say it, and what every GPU that we build for has. No CUDA, no torch, no STL: plans ask no
// GPU.
#pragma once

#include <cstdint>

namespace vdiff {

constexpr int kWarp = 32;

constexpr int64_t kSharedBytesOfAny = 48 << 10;   // what a kernel may have without asking
constexpr int64_t kLargestBlockBytes = 99 << 10;  // and what every GPU we build for can give a block

struct LaunchShape {
  int64_t blocks;        // along x; 0: nothing is launched
  int threads;           // of a block
  int64_t shared_bytes;  // of a block, dynamic
};

}  // namespace vdiff
