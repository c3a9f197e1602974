// The versions that decide whether the CUDA kernels can run here, for Python to ask (ctypes): 13000 is CUDA 13.0.
#define VDIFF_EXPORT extern "C" __attribute__((visibility("default")))

// Of the runtime in this library.
VDIFF_EXPORT int vdiff_cuda_runtime_version() {
  int version = 0;
  cudaRuntimeGetVersion(&version);
  return version;
}

// The newest that the driver serves; 0: there is no driver.
VDIFF_EXPORT int vdiff_cuda_driver_version() {
  int version = 0;
  cudaDriverGetVersion(&version);
  return version;
}
