// Attention over T = 16 frames of D = 64, bf16: softmax(scale * Q K^T) V, a sequence to a warp, four to a block. It is here to be
// simulated: fragments come by cp.async and ldmatrix, products from mma.m16n8k16.
#include <cuda_bf16.h>

#include <cstdint>

constexpr int T = 16, D = 64, kWarps = 4, kPieces = D / 8;   // a piece: 8 elements, 16 bytes

__device__ inline uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// Pieces of a row are permuted so that eight rows' pieces of one column lie in different banks.
__device__ inline int swizzled(int row, int piece) { return row * D + (piece ^ (row % 8)) * 8; }

__device__ inline void load_tile(__nv_bfloat16* tile, const __nv_bfloat16* from, int lane) {
  for (int p = lane; p < T * kPieces; p += 32) {
    const int row = p / kPieces, piece = p % kPieces;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(tile + swizzled(row, piece))),
                 "l"(from + row * D + piece * 8) : "memory");
  }
}

template <bool kTransposed> __device__ inline void load_matrices(uint32_t (&r)[4], const __nv_bfloat16* at) {
  if (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(at)) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(at)) : "memory");
}

__device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline uint32_t packed(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

extern "C" __global__ void __launch_bounds__(32 * kWarps) attention(const __nv_bfloat16* q, const __nv_bfloat16* k,
                                                                    const __nv_bfloat16* v, __nv_bfloat16* out, int sequences, float scale) {
  __shared__ alignas(16) __nv_bfloat16 tiles[kWarps][3][T * D];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t sequence = int64_t(blockIdx.x) * kWarps + warp;
  if (sequence >= sequences) return;
  auto& tile = tiles[warp];
  load_tile(tile[0], q + sequence * T * D, lane);
  load_tile(tile[1], k + sequence * T * D, lane);
  load_tile(tile[2], v + sequence * T * D, lane);
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncwarp();

  // Matrix m of an ldmatrix gets its rows' addresses from lanes 8m to 8m + 7.
  const int row = lane % 8, matrix = lane / 8;
  float s[2][4] = {};   // 16 queries by two groups of 8 keys
  for (int d = 0; d < D / 16; d++) {
    uint32_t a[4], b[4];
    load_matrices<false>(a, tile[0] + swizzled(row + matrix % 2 * 8, 2 * d + matrix / 2));
    load_matrices<false>(b, tile[1] + swizzled(row + matrix / 2 * 8, 2 * d + matrix % 2));
    multiply(s[0], a, b[0], b[1]);
    multiply(s[1], a, b[2], b[3]);
  }
  // A lane holds rows lane / 4 (elements 0, 1) and lane / 4 + 8 (2, 3); the four lanes of a row reduce it.
  float inverse[2];
  for (int half = 0; half < 2; half++) {
    float most = fmaxf(fmaxf(s[0][2 * half], s[0][2 * half + 1]), fmaxf(s[1][2 * half], s[1][2 * half + 1]));
    most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
    most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
    float sum = 0;
    for (int n = 0; n < 2; n++)
      for (int e = 2 * half; e < 2 * half + 2; e++) sum += s[n][e] = exp2f((s[n][e] - most) * scale * 1.44269504f);
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    inverse[half] = 1 / sum;
  }
  const uint32_t p[4] = {packed(s[0][0], s[0][1]), packed(s[0][2], s[0][3]), packed(s[1][0], s[1][1]), packed(s[1][2], s[1][3])};
  __nv_bfloat16* const rows = out + sequence * T * D + lane / 4 * D + lane % 4 * 2;
  for (int d = 0; d < D / 16; d++) {
    uint32_t b[4];
    load_matrices<true>(b, tile[2] + swizzled(row + matrix % 2 * 8, 2 * d + matrix / 2));
    for (int n = 0; n < 2; n++) {
      float o[4] = {};
      multiply(o, p, b[2 * n], b[2 * n + 1]);
      const int column = 16 * d + 8 * n;
      *reinterpret_cast<uint32_t*>(rows + column) = packed(o[0] * inverse[0], o[1] * inverse[0]);
      *reinterpret_cast<uint32_t*>(rows + 8 * D + column) = packed(o[2] * inverse[1], o[3] * inverse[1]);
    }
  }
}
