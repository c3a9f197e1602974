// The instructions that CUDA C++ has no words for. The only file with inline PTX; all of it is of compute capability 8.0.
#pragma once

#include <cstdint>

#include "common/scalar.h"

namespace vdiff::ptx {

__device__ inline uint32_t shared_address(const void* pointer) { return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }

// Copies kBytes (4, 8 or 16) from global to shared memory when the lane gets to it. Zeros, and nothing is read, where it is not there.
template <int kBytes>
__device__ inline void copy_async(uint32_t shared, const void* global, bool there) {
  const int bytes = there ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(bytes) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared), "l"(global), "n"(kBytes), "r"(bytes) : "memory");
  }
}

__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for all groups but the kPending youngest.
template <int kPending>
__device__ inline void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8x8 matrices of 16 bits. row: the address in shared memory of that of the lane, lane 8m + r that of row r of matrix m; 16
// bytes, aligned. A lane gets elements 2 (lane % 4) and the next of row lane / 4 of each; transposed, of column lane / 4.
__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}

__device__ inline void load_matrices_transposed(uint32_t (&r)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}

// A fragment of an 8x8 matrix of 16 bits, transposed.
__device__ inline uint32_t transposed(uint32_t fragment) {
  uint32_t r;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(fragment));
  return r;
}

// c += a b: a (16, 16), b (16, 8), c (16, 8). With g = lane / 4, t = lane % 4, c holds (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1); a the
// pairs at (g, 2t), (g+8, 2t), (g, 2t+8), (g+8, 2t+8); b those at (2t, g), (2t+8, g), along its rows.
template <class T>
__device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

#define VDIFF_MMA(T, TYPE)                                                                                             \
  template <>                                                                                                          \
  __device__ inline void multiply<T>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {                \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE                                                \
                 ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                                \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                      \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                      \
  }
VDIFF_MMA(Half, "f16")
VDIFF_MMA(BFloat16, "bf16")
#undef VDIFF_MMA

// c += a b: a (16, 8), b (8, 8), c (16, 8) as above; a holds the pairs at (g, 2t), (g+8, 2t), b that at (2t, g).
template <class T>
__device__ inline void multiply(float (&c)[4], const uint32_t (&a)[2], uint32_t b);

#define VDIFF_MMA(T, TYPE)                                                                                              \
  template <>                                                                                                          \
  __device__ inline void multiply<T>(float (&c)[4], const uint32_t (&a)[2], uint32_t b) {                              \
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32." TYPE "." TYPE                                                 \
                 ".f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"                                            \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                      \
                 : "r"(a[0]), "r"(a[1]), "r"(b));                                                                      \
  }
VDIFF_MMA(Half, "f16")
VDIFF_MMA(BFloat16, "bf16")
#undef VDIFF_MMA

// x to the nearest of tf32, whose significands have 11 bits.
__device__ inline float to_tf32(float x) {
  uint32_t r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
  return __uint_as_float(r);
}

// c += a b of tf32: a (16, 8), b (8, 8), c (16, 8) as above; a holds (g, t), (g+8, t), (g, t+4), (g+8, t+4), b (t, g), (t+4, g).
__device__ inline void multiply_tf32(float (&c)[4], const float (&a)[4], float b0, float b1) {
  const auto bits = [](float x) { return __float_as_uint(x); };
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(bits(a[0])), "r"(bits(a[1])), "r"(bits(a[2])), "r"(bits(a[3])), "r"(bits(b0)), "r"(bits(b1)));
}

// x. What follows from it is computed where it is used, not ahead of the branch to there.
__device__ inline int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

// x, in a loop: what follows from it is computed in every turn, not kept in a register from before the loop on. turn: 0 or more, and
// changes with the turns, which is all that ptxas is told of it.
__device__ inline int opaque(int x, int turn) { return x + (opaque(turn) >> 31); }

// 2^x within two ulp; 0 for -infinity.
__device__ inline float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x within one ulp.
__device__ inline float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two values as halves, low first, to the nearest.
template <class T>
__device__ inline uint32_t pack(float low, float high);
template <>
__device__ inline uint32_t pack<Half>(float low, float high) {
  uint32_t r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
template <>
__device__ inline uint32_t pack<BFloat16>(float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

}  // namespace vdiff::ptx
