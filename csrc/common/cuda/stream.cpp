#include "common/cuda/stream.h"

#include <dlfcn.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/shim_utils.h>

namespace {

using StreamFunction = AOTITorchError (*)(int32_t device_index, void** stream);

// The function lives in libtorch_cuda.so, outside this library's scope: a weak reference to it would stay null even there.
StreamFunction find_stream_function() {
  void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
  return library ? reinterpret_cast<StreamFunction>(dlsym(library, "aoti_torch_get_current_cuda_stream")) : nullptr;
}

StreamFunction stream_function() {
  static const StreamFunction function = find_stream_function();
  return function;
}

}  // namespace

namespace vdiff {

void* current_cuda_stream(int32_t device_index) {
  STD_TORCH_CHECK(
      stream_function(), "vdiff_kernels: no current CUDA stream: this torch has no libtorch_cuda.so with "
      "aoti_torch_get_current_cuda_stream in it; install a CUDA build of torch");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(stream_function()(device_index, &stream));
  return stream;
}

}  // namespace vdiff

int vdiff_stream_function_found() { return stream_function() != nullptr; }
