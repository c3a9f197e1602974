// geglu_fwd: out = a * gelu(b), [a | b] = x weight^T + bias, gelu exact.       contract: params.h, GegluParams
//
//   grid   (ceil(M / 128) * ceil(E / 64), 1, 1)   x alone; groups of 8 tiles of rows before the next columns (TileGrid)
//   block  256 threads                        tile_product.cuh: 32 x (32 of a + 32 of b) a warp
//   tile   128 rows x (64 columns of a + the same of b); C by 32, float by 16, in 3 stages
//   smem   48 KiB; after the product each warp's part is what its rows of out pass through on the way to whole pieces
//   bytes  x, weight and bias read, out written; of L2 a tile of x and of the weight, 64 KiB for each 128 of C (half types)
//   flops  4 C E a row                        2 C E / (C + E) a byte of half types where M is large: compute-bound from there on
//   acc    fp32; float by three products of tf32
//   limits C, 2E < 2^31; offsets are 64-bit
//
//   [a | b] = x weight^T                     (1)
//   out = (a + bias) gelu(b + bias)          (2)
#pragma once

#include "feedforward/cuda/sm80/gated.cuh"
#include "feedforward/cuda/sm80/instantiations.h"

namespace vdiff::feedforward {

template <class T>
__global__ void __launch_bounds__(product::kThreads, 2) geglu_fwd_kernel(Gated<T> p, T* out, int out_bytes) {
  extern __shared__ __align__(16) char shared_memory[];
  using Rows = product::WarpRows<T, kHalfColumns>;
  const TileGrid::Place place = p.tiles.place(blockIdx.x);

  // (1) [a | b] = x weight^T
  product::Accumulators rC = {};
  gated_product(rC, shared_memory, p, place);

  // (2) out = (a + bias) gelu(b + bias)
  const GatedPlace at(place);
  const Rows sOut(shared_memory + threadIdx.x / kWarp * Rows::kBytes);
#pragma unroll
  for (int m = 0; m < product::kM; ++m) {
    for_each_gated(rC[m], p, at.e, [&](int row, int column, const float (&a)[2], const float (&b)[2]) {
      store_pair(sOut.pair(row, column), a[0] * b[0] * cdf(b[0]), a[1] * b[1] * cdf(b[1]));
    });
    __syncwarp();
    const int64_t row = at.row + 16 * m;
    sOut.template store<kHalfColumns>(out + row * p.E + at.e, p.E, p.M - row, p.E - at.e, out_bytes);
    __syncwarp();
  }
}

template <class T>
void launch_fwd(const GegluParams& p, const GegluFwdPlan& plan, cudaStream_t stream) {
  launch("geglu_fwd_kernel", geglu_fwd_kernel<T>, plan.shape, stream, gated_of<T>(p, plan.tiles), static_cast<T*>(p.out),
         product::copy_bytes(p.out, p.M, p.E, p.E, sizeof(T)));
}

}  // namespace vdiff::feedforward
