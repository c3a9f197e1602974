#include "common/launch.h"

#include <cstdio>
#include <stdexcept>

namespace vdiff {

void check_launch(const char* kernel, int64_t grid, int64_t block, int64_t shared_bytes) {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return;
  int device = -1;
  cudaGetDevice(&device);
  char text[512];
  std::snprintf(
      text, sizeof(text), "%s: launch failed: %s (%s); grid %lld, block %lld, %lld bytes of dynamic shared memory, device %d",
      kernel, cudaGetErrorString(error), cudaGetErrorName(error), static_cast<long long>(grid),
      static_cast<long long>(block), static_cast<long long>(shared_bytes), device);
  throw std::runtime_error(text);
}

unsigned grid_x(const char* kernel, int64_t blocks) {
  if (blocks <= INT32_MAX) return static_cast<unsigned>(blocks);
  char text[256];
  std::snprintf(text, sizeof(text), "%s: needs %lld blocks; a grid holds %d", kernel, static_cast<long long>(blocks), INT32_MAX);
  throw std::runtime_error(text);
}

}  // namespace vdiff
