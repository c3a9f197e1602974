// Kernels with one mistake each where BUG is 1, on the line that says so, and none where it is 0.
#include <cuda_fp16.h>

#include <cstdint>

__device__ inline uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// Each warp sums what the others wrote.
template <int BUG> __global__ void between_warps(const float* x, float* out) {
  __shared__ float part[4];
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x[threadIdx.x];
  if (!BUG) __syncthreads();
  out[threadIdx.x] = part[0] + part[1] + part[2] + part[3];  // BUG: read before the others wrote
}

// Lanes exchange values through shared memory; the numbers are right without the barrier too.
template <int BUG> __global__ void within_warp(const float* x, float* out) {
  __shared__ float row[32];
  row[threadIdx.x] = x[threadIdx.x];
  if (!BUG) __syncwarp();
  out[threadIdx.x] = row[31 - threadIdx.x];  // BUG: no __syncwarp
}

// A buffer is filled again while it is still read.
template <int BUG> __global__ void overwritten(const float* x, float* out, int rounds) {
  __shared__ float buffer[128];
  float sum = 0;
  for (int r = 0; r < rounds; r++) {
    buffer[threadIdx.x] = x[r * 128 + threadIdx.x];  // BUG: others still read the last round
    __syncthreads();
    sum += buffer[127 - threadIdx.x];
    if (!BUG) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

// Lanes of a warp write different values to one place.
template <int BUG> __global__ void one_place(float* out) {
  __shared__ float place;
  if (BUG || threadIdx.x == 0) place = BUG ? float(threadIdx.x) : 1.0f;  // BUG: 32 values
  __syncthreads();
  out[threadIdx.x] = place;
}

// Blocks add to one number.
template <int BUG> __global__ void between_blocks(float* total) {
  if (threadIdx.x != 0) return;
  if (BUG) *total = *total + 1.0f;  // BUG: not atomic
  else atomicAdd(total, 1.0f);
}

// The block that is last to count adds up what the others wrote.
template <int BUG> __global__ void last_block(const float* x, float* parts, unsigned* count, float* out) {
  if (threadIdx.x != 0) return;
  parts[blockIdx.x] = x[blockIdx.x];
  if (!BUG) __threadfence();
  const bool last = atomicAdd(count, 1u) == gridDim.x - 1;
  if (!BUG) __threadfence();
  if (!last) return;
  float sum = 0;
  for (int b = 0; b < gridDim.x; b++) sum += parts[b];  // BUG: without a fence
  *out = sum;
}

// The last element of a row belongs to the next row.
template <int BUG> __global__ void beyond_global(const float* x, float* out, int n) {
  const int i = threadIdx.x;
  if (i < n + BUG) out[i] = x[i];  // BUG: one too many
}

// Two static arrays stand one after the other.
template <int BUG> __global__ void into_the_next(float* out) {
  __shared__ float first[32], second[32];
  first[threadIdx.x] = 1.0f;
  second[threadIdx.x] = 2.0f;
  __syncthreads();
  out[threadIdx.x] = first[threadIdx.x + BUG] + second[threadIdx.x];  // BUG: lane 31 reads second[0]
}

template <int BUG> __global__ void beyond_shared(float* out) {
  extern __shared__ float dynamic[];
  dynamic[threadIdx.x + 32 * BUG] = 1.0f;  // BUG: 32 floats were asked for
  __syncwarp();
  out[threadIdx.x] = dynamic[threadIdx.x + 32 * BUG];
}

template <int BUG> __global__ void unwritten_shared(float* out) {
  __shared__ float row[64];
  row[threadIdx.x] = 1.0f;
  if (!BUG) row[threadIdx.x + 32] = 2.0f;
  __syncwarp();
  out[threadIdx.x] = row[2 * threadIdx.x];  // BUG: the second half was not written
}

template <int BUG> __global__ void unwritten_global(float* scratch, float* out) {
  if (!BUG || threadIdx.x < 16) scratch[threadIdx.x] = 1.0f;
  out[threadIdx.x] = scratch[threadIdx.x];  // BUG: half of it
}

template <int BUG> __global__ void misaligned(const float* x, float4* out) {
  out[threadIdx.x] = *reinterpret_cast<const float4*>(x + BUG + 4 * threadIdx.x);  // BUG: 4 bytes off
}

template <int BUG> __global__ void part_of_a_block(const float* x, float* out) {
  __shared__ float row[64];
  row[threadIdx.x] = x[threadIdx.x];
  if (BUG && threadIdx.x >= 32) return;
  __syncthreads();  // BUG: the second warp has left
  out[threadIdx.x] = row[threadIdx.x ^ 1];
}

template <int BUG> __global__ void part_of_a_warp(const float* x, float* out) {
  __shared__ float row[32];
  row[threadIdx.x] = x[threadIdx.x];
  if (!BUG || threadIdx.x < 16) __syncthreads();  // BUG: half of the warp
  __syncwarp();
  out[threadIdx.x] = row[threadIdx.x];
}

template <int BUG> __global__ void deadlock(float* out) {
  if (threadIdx.x < 32) asm volatile("bar.sync 1, 64;" ::: "memory");  // BUG: the others wait at barrier 2
  else asm volatile("bar.sync %0, 64;" ::"r"(1 + BUG) : "memory");
  out[threadIdx.x] = 1.0f;
}

template <int BUG> __global__ void inactive_lane(const float* x, float* out) {
  float v = x[threadIdx.x];
  if (threadIdx.x < 16) v += __shfl_sync(0x0000ffffu, v, threadIdx.x + 16 * BUG);  // BUG: reads lanes that are not here
  out[threadIdx.x] = v;
}

template <int BUG> __global__ void before_its_wait(const float4* x, float4* out) {
  __shared__ float4 row[32];
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(row + threadIdx.x)), "l"(x + threadIdx.x) : "memory");
  asm volatile("cp.async.commit_group;" ::: "memory");
  if (!BUG) asm volatile("cp.async.wait_group 0;" ::: "memory");
  out[threadIdx.x] = row[threadIdx.x];  // BUG: the copy may still be under way
}

// One group too many is left under way.
template <int BUG> __global__ void group_too_early(const float4* x, float4* out) {
  __shared__ float4 row[2][32];
  for (int stage = 0; stage < 2; stage++) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(row[stage] + threadIdx.x)), "l"(x + 32 * stage + threadIdx.x) : "memory");
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  asm volatile("cp.async.wait_group %0;" ::"n"(BUG ? 1 : 0) : "memory");
  out[threadIdx.x] = row[1][threadIdx.x];  // BUG: the second group has not been waited for
}

// Another warp reads what cp.async brought, with no barrier between.
template <int BUG> __global__ void copy_for_another(const float4* x, float4* out) {
  __shared__ float4 row[64];
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(row + threadIdx.x)), "l"(x + threadIdx.x) : "memory");
  asm volatile("cp.async.wait_all;" ::: "memory");
  if (!BUG) __syncthreads();
  out[threadIdx.x] = row[threadIdx.x ^ 32];  // BUG: no barrier
}

template <int BUG> __global__ void matrix_too_early(const __half* x, uint32_t* out) {
  __shared__ __half rows[8][8];
  for (int e = threadIdx.x; e < 64; e += 32) rows[e / 8][e % 8] = x[e];
  if (!BUG) __syncwarp();
  uint32_t r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(shared_address(rows[threadIdx.x % 8])) : "memory");  // BUG: no __syncwarp
  out[threadIdx.x] = r;
}

#define BOTH(name, ...) template __global__ void name<0>(__VA_ARGS__); template __global__ void name<1>(__VA_ARGS__);
BOTH(between_warps, const float*, float*)
BOTH(within_warp, const float*, float*)
BOTH(overwritten, const float*, float*, int)
BOTH(one_place, float*)
BOTH(between_blocks, float*)
BOTH(last_block, const float*, float*, unsigned*, float*)
BOTH(beyond_global, const float*, float*, int)
BOTH(into_the_next, float*)
BOTH(beyond_shared, float*)
BOTH(unwritten_shared, float*)
BOTH(unwritten_global, float*, float*)
BOTH(misaligned, const float*, float4*)
BOTH(part_of_a_block, const float*, float*)
BOTH(part_of_a_warp, const float*, float*)
BOTH(deadlock, float*)
BOTH(inactive_lane, const float*, float*)
BOTH(before_its_wait, const float4*, float4*)
BOTH(group_too_early, const float4*, float4*)
BOTH(copy_for_another, const float4*, float4*)
BOTH(matrix_too_early, const __half*, uint32_t*)
