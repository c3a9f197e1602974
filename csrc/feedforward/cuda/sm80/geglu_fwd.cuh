// geglu_fwd: out = a * gelu(b), [a | b] = x weight^T + bias, gelu exact.       contract: params.h, GegluParams
//
//   grid   (ceil(M / 128) * ceil(E / 64), 1, 1)   x alone; groups of 8 tiles of rows before the next columns (TileGrid)
//   block  256 threads                        tile_product.cuh: 32 x (32 of a + 32 of b) a warp
//   tile   128 rows x (64 columns of a + the same of b); C by 32, float by 16, in 3 stages
//   smem   48 KiB; after the product each warp's part is what its rows of out pass through on the way to whole pieces
//   bytes  x, weight and bias read, out written; of L2 a tile of x and of the weight, 64 KiB for each 128 of C (half types)
//   flops  4 C E a row                        2 C E / (C + E) a byte of half types where M is large: compute-bound from there on
//   acc    fp32; float by three products of tf32
//   limits M, C, 2E < 2^30, checked by run.cpp; offsets are 64-bit
//
//   [a | b] = x weight^T                     (1)
//   out = (a + bias) gelu(b + bias)          (2)
#pragma once

#include "feedforward/cuda/sm80/gated.cuh"
#include "feedforward/cuda/sm80/instantiations.h"

namespace vdiff::feedforward {

template <class T, int kWide>
__global__ void __launch_bounds__(product::kThreads, product::kBlocks<kWide>)
    geglu_fwd_kernel(Gated<T> p, T* out, int out_bytes) {
  extern __shared__ __align__(16) char shared_memory[];
  using Rows = product::WarpRows<T, kHalfColumns>;

  // (1) [a | b] = x weight^T
  product::Accumulators rC = {};
  gated_product<kWide>(rC, shared_memory, p);

  // (2) out = (a + bias) gelu(b + bias)
  const GatedPlace at(p.tiles);
  const Rows sOut(shared_memory + threadIdx.x / kWarp * Rows::kBytes);
#pragma unroll
  for (int m = 0; m < product::kM; ++m) {
    for_each_gated(rC[m], p, at.e, [&](int n, int half, const float (&a)[2], const float (&b)[2]) {
      T* const to = sOut.pair(product::row_of_pair(half), product::column_of_pair(n));
      store_pair(to, a[0] * b[0] * cdf(b[0]), a[1] * b[1] * cdf(b[1]));
    });
    __syncwarp();
    const int64_t row = at.row + 16 * m;
    sOut.store(product::MatrixRows<T>{out + row * p.E + at.e, p.E, p.M - row}, p.E - at.e, out_bytes);
    __syncwarp();
  }
}

template <class T>
void launch_fwd(const GegluParams& p, const GegluFwdPlan& plan, cudaStream_t stream) {
  const Gated<T> gated = gated_of<T>(p, plan.tiles);
  const int out_bytes = product::copy_bytes(p.out, p.M, p.E, p.E, sizeof(T));
  product::dispatch_width(gated.is_wide(), [&](auto wide) {
    launch("geglu_fwd_kernel", geglu_fwd_kernel<T, decltype(wide)::value>, plan.shape, stream, gated, static_cast<T*>(p.out),
           out_bytes);
  });
}

}  // namespace vdiff::feedforward
