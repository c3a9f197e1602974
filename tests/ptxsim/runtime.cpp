// A stand-in for the CUDA runtime: what nvcc's host code calls. Launches that a GPU would take are handed to a callback, which has them
// simulated; those that it would refuse are refused with the runtime's own error codes.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <stdexcept>

struct dim3 {
  unsigned x, y, z;
};

namespace {

constexpr int kSuccess = 0, kInvalidValue = 1, kInvalidConfiguration = 9, kInvalidDeviceFunction = 98, kLaunchFailure = 719;
constexpr int64_t kSharedBytesOfAny = 48 << 10;

// Nonzero where the simulation failed.
using Simulate = int (*)(const char* kernel, const unsigned* grid_and_block, int64_t shared_bytes, void** arguments, void* stream);

struct Kernel {
  const char* name;
  int64_t allowed_shared_bytes = kSharedBytesOfAny;
};

std::map<const void*, Kernel>& kernels() {  // by the host's function
  static std::map<const void*, Kernel> all;
  return all;
}

Simulate simulate = nullptr;
int64_t largest_shared_bytes = 99 << 10;
int last_error = kSuccess;

struct Configuration {
  dim3 grid, block;
  size_t shared_bytes;
  void* stream;
} configuration;

int failed(int error) {
  if (error != kSuccess) last_error = error;
  return error;
}

int launch(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared_bytes, void* stream) {
  const auto found = kernels().find(function);
  if (found == kernels().end()) return failed(kInvalidDeviceFunction);
  const int64_t threads = int64_t(block.x) * block.y * block.z;
  const bool blocks = grid.x >= 1 && grid.x <= INT32_MAX && grid.y >= 1 && grid.y <= 65535 && grid.z >= 1 && grid.z <= 65535;
  if (!blocks || threads < 1 || threads > 1024) return failed(kInvalidConfiguration);
  if (int64_t(shared_bytes) > found->second.allowed_shared_bytes) return failed(kInvalidValue);
  const unsigned shape[6] = {grid.x, grid.y, grid.z, block.x, block.y, block.z};
  return failed(simulate(found->second.name, shape, int64_t(shared_bytes), arguments, stream) == 0 ? kSuccess : kLaunchFailure);
}

}  // namespace

extern "C" {

// ------------------------------------------------------------------------------------------------------- what nvcc's code calls

void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
void __cudaRegisterFunction(void**, const char* function, char*, const char* name, int, void*, void*, void*, void*, int*) {
  kernels()[function].name = name;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, void* stream) {
  configuration = {grid, block, shared_bytes, stream};
  return 0;
}
int __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_bytes, void* stream) {
  *grid = configuration.grid;
  *block = configuration.block;
  *shared_bytes = configuration.shared_bytes;
  *static_cast<void**>(stream) = configuration.stream;
  return kSuccess;
}
int __cudaGetKernel(const void** kernel, const void* function) {
  *kernel = function;
  return kSuccess;
}
int __cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** arguments, size_t shared_bytes, void* stream) {
  return launch(kernel, grid, block, arguments, shared_bytes, stream);
}
int cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared_bytes, void* stream) {
  return launch(function, grid, block, arguments, shared_bytes, stream);
}

int cudaFuncSetAttribute(const void* function, int attribute, int value) {
  constexpr int kMaxDynamicSharedMemorySize = 8;
  if (attribute != kMaxDynamicSharedMemorySize || value > largest_shared_bytes) return failed(kInvalidValue);
  kernels()[function].allowed_shared_bytes = value;
  return kSuccess;
}

int cudaGetLastError() {
  const int error = last_error;
  last_error = kSuccess;
  return error;
}
int cudaGetDevice(int* device) {
  *device = 0;
  return kSuccess;
}
const char* cudaGetErrorName(int error) {
  switch (error) {
    case kInvalidValue:
      return "cudaErrorInvalidValue";
    case kInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case kInvalidDeviceFunction:
      return "cudaErrorInvalidDeviceFunction";
    default:
      return "cudaErrorLaunchFailure";
  }
}
const char* cudaGetErrorString(int error) { return cudaGetErrorName(error); }

// ---------------------------------------------------------------------------------------------------------- what launcher.py calls

// shared_bytes: what the GPU can give a block.
void ptxsim_runtime(Simulate callback, int64_t shared_bytes) {
  simulate = callback;
  largest_shared_bytes = shared_bytes;
  for (auto& [function, kernel] : kernels()) kernel.allowed_shared_bytes = std::min(kSharedBytesOfAny, shared_bytes);
  last_error = kSuccess;
}

// Calls a function of up to six integers and pointers; what it throws goes to error.
int64_t ptxsim_call(void* function, const int64_t* a, char* error, int64_t error_bytes) {
  using Function = int64_t (*)(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);
  error[0] = 0;
  try {
    return reinterpret_cast<Function>(function)(a[0], a[1], a[2], a[3], a[4], a[5]);
  } catch (const std::exception& thrown) {
    std::snprintf(error, size_t(error_bytes), "%s", thrown.what());
    return 0;
  }
}

}  // extern "C"
