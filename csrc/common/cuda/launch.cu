#include "common/cuda/launch.cuh"

#include <cstdio>
#include <stdexcept>

namespace vdiff {

namespace {

int current_device() {
  int device = -1;
  cudaGetDevice(&device);
  return device;
}

}  // namespace

void ask_for_shared_bytes(const char* kernel, const void* function, int64_t shared_bytes) {
  const cudaError_t error =
      cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
  if (error == cudaSuccess) return;
  cudaGetLastError();  // raised here, it must not be taken for the next launch's
  char text[512];
  std::snprintf(
      text, sizeof(text), "%s: %lld bytes of dynamic shared memory refused: %s (%s); device %d", kernel,
      static_cast<long long>(shared_bytes), cudaGetErrorString(error), cudaGetErrorName(error), current_device());
  throw std::runtime_error(text);
}

void check_launch(const char* kernel, int64_t grid, int64_t block, int64_t shared_bytes) {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return;
  char text[512];
  std::snprintf(
      text, sizeof(text), "%s: launch failed: %s (%s); grid %lld, block %lld, %lld bytes of dynamic shared memory, device %d",
      kernel, cudaGetErrorString(error), cudaGetErrorName(error), static_cast<long long>(grid),
      static_cast<long long>(block), static_cast<long long>(shared_bytes), current_device());
  throw std::runtime_error(text);
}

unsigned grid_x(const char* kernel, int64_t blocks) {
  if (blocks <= INT32_MAX) return static_cast<unsigned>(blocks);
  char text[256];
  std::snprintf(text, sizeof(text), "%s: needs %lld blocks; a grid holds %d", kernel, static_cast<long long>(blocks), INT32_MAX);
  throw std::runtime_error(text);
}

}  // namespace vdiff
