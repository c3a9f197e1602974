// Launchers that a GPU would serve, and some that it would refuse: what launcher.py must do with each.
#include <cstdint>
#include <stdexcept>

namespace launchers {

struct Params {
  float* out;
  int64_t count;
  float value;
};

__global__ void fill(Params p, float more) {
  extern __shared__ float shared[];
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  shared[threadIdx.x] = p.value;
  if (i < p.count) p.out[i] = shared[threadIdx.x] + more;
}

__global__ void __launch_bounds__(64) small(float* out) { out[threadIdx.x] = 1; }

void check() {
  if (const cudaError_t error = cudaGetLastError()) throw std::runtime_error(cudaGetErrorName(error));
}

int64_t blocks_of(const Params& p, int64_t threads) { return (p.count + threads - 1) / threads; }

// Twice: fills with value + 1, then with value + 2.
void launch_fill(const Params& p, int64_t threads) {
  for (int pass = 1; pass <= 2; ++pass) {
    fill<<<unsigned(blocks_of(p, threads)), unsigned(threads), threads * sizeof(float)>>>(p, float(pass));
    check();
  }
}

void launch_with_shared(const Params& p, int64_t bytes, int64_t asked) {
  if (asked != 0) cudaFuncSetAttribute(fill, cudaFuncAttributeMaxDynamicSharedMemorySize, int(asked));
  check();
  fill<<<1, 32, bytes>>>(p, 0);
  check();
}

void launch_grid(float* out, int64_t blocks, int64_t threads) {
  small<<<unsigned(blocks), unsigned(threads)>>>(out);
  check();
}

void twin(int64_t) {}
void twin(float*) {}

}  // namespace launchers
