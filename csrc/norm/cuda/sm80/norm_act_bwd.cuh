// norm_act backward: from dh, the gradient of h = act(norm(x)), to dx and the norm's parameters.
//                                                                              contract: DESIGN.md 4; plan.h: the table
//   n = (x - mean) * rstd, u = n * gain + add, gain = weight * (1 + scale), mul = rstd * gain; du = dh * act'(u)
//   V = 16 / sizeof(T) channels a piece, P = H*W pixels a frame. Grids lie on x alone and are cut by the shape alone; nothing is
//   added by atomics, and every sum's order follows from the shape: a thread's pixels, the block's rows, then the runs.
//
// norm_act_sums: of a group norm, the sums of a channel's du and du * n over a run of pixels
//
//   grid   (B*T * runs * tiles, 1, 1)      block kThreads threads, as norm_act_channels_fwd, kSumPixels pixels a thread
//   smem   kThreads * 2 V floats           16 KiB, float 8 KiB
//   bytes  x and dh read once; 8 bytes a channel of a run (512 pixels of a line's channels) written
//   flops  8 an element, SiLU 10 more      memory-bound
//
//   sum_1 += du, sum_x += du * (x - mean)                                (1)
//   rows of a channel added pairwise                                     (2)
//   sums = sum_1, sum_x * rstd                                           (3)
//
// norm_of_groups: what dx takes of those sums, to the table
//
//   grid   (rows of the table * groups, 1, 1)   block as norm_table
//
//   of_one = sum mul sum_1 / count, of_x = rstd sum mul sum_n / count    (4) over a group's channels and its frames' runs
//
// norm_act_channels_dx: of group norms, and of none
//
//   grid, block as norm_act_channels_fwd   bytes x and dh read once, dx written once; 20 bytes of table a channel of a frame
//
//   dx = du * mul - of_one - (x - mean) * of_x                           (5)
//
// norm_act_pixels_bwd: layer and rms norms, dx and the sums in one pass
//
//   grid   (B*T * runs, 1, 1)              runs of kRunPixels pixels, with all of their channels
//   block  as norm_act_pixels_fwd, up to 24 a thread (float: 16), with their two sums in
//          registers
//   smem   kThreads * 2 V floats, where parameters want a gradient; 4 * 32 floats
//   bytes  x and dh read once, dx written once; 8 bytes a channel of a run written: 1 in 192 of half x
//   limits C <= kMaxChannels
//
//   dx = rstd (dn - mean(dn) - n mean(dn n)), dn = du * gain             (6) over the team; rms: without mean(dn)
//   sum_1 += du, sum_n += du * n; teams added pairwise                   (7)
//
// norm_act_parameters: the runs' sums into the parameters' gradients
//
//   grid   (ceil(C / 32), 1, 1)            block kSlices warps: a warp takes every kSlices'th run, a lane has a channel
//
//   dscale = weight sum_n + bias sum_1, dshift = sum_1                   (8) over a clip's runs
//   dweight += (1 + scale) sum_n, dbias += (1 + scale) sum_1             (9) clip by clip
#pragma once

#include "norm/cuda/sm80/norm_places.cuh"

namespace vdiff::norms {

template <bool kAligned>
constexpr int kBlocks = kAligned ? 3 : 2;  // of a multiprocessor of 65,536 registers: 24 warps, or 16

template <class T, bool kAligned>
__global__ void __launch_bounds__(kThreads, kBlocks<kAligned>) norm_act_sums_kernel(NormCall p) {
  constexpr int V = kPiece<T>;
  extern __shared__ float shared[];  // kThreads * 2 V
  const ChannelPlace<T> at(p);
  float rSums[2 * V] = {};  // of du, then of du * (x - mean)
  if (at.channels > 0) {
    float rMean[V], rMul[V], rAdd[V];
    load_field<V, kAligned>(rMean, p, kMean, at.frame, at.c, 0);
    load_field<V, kAligned>(rMul, p, kMul, at.frame, at.c, 1);
    load_field<V, kAligned>(rAdd, p, kAdd, at.frame, at.c, 0);
    for_pixels<T, kAligned>(p, at, true, [&](int, const Piece<T>& x, const Piece<T>& grad) {
      // (1) sum_1 += du, sum_x += du * (x - mean)
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const float centred = x.value[i] - rMean[i];
        const float du = grad.value[i] * slope(centred * rMul[i] + rAdd[i], p.silu);
        rSums[i] += du;
        rSums[V + i] += du * centred;
      }
    });
  }
  // (2) rows of a channel added pairwise
  sum_of_rows(rSums, p.cut.columns, shared);
  if (at.row != 0 || at.channels <= 0) return;
  // (3) sums = sum_1, sum_x * rstd
  float rRstd[V], rOne[V], rN[V];
  load_field<V, kAligned>(rRstd, p, kRstd, at.frame, at.c, 1);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    rOne[i] = rSums[i];
    rN[i] = rSums[V + i] * rRstd[i];
  }
  float* gSums = p.sums + (int64_t(at.frame) * p.cut.runs + at.run) * 2 * p.C + at.c;
  store_floats<V, kAligned>(gSums, rOne, at.channels);
  store_floats<V, kAligned>(gSums + p.C, rN, at.channels);
}

// runs: of the frames that share a row of the table, whose pixels and a group's `width` channels are `count`.
template <int = 0>
__global__ void __launch_bounds__(kThreads)
    norm_of_groups_kernel(const float* sums, float* table, int C, int width, int runs, float count) {
  __shared__ float warps[2 * kWarp];
  const Team team = this_block();
  const int groups = C / width, row = blockIdx.x / groups, first_c = blockIdx.x % groups * width;
  float* gRow = table + int64_t(row) * kFields * C + first_c;              // (kFields, C)
  const float* gSums = sums + int64_t(row) * runs * 2 * C + first_c;  // (runs, 2, C)
  // (4) of_one = sum mul sum_1 / count, of_x = rstd sum mul sum_n / count
  float one = 0, n = 0;
  for (int i = team.rank; i < runs * width; i += team.size) {
    const int c = i % width;
    const float mul = gRow[kMul * C + c];
    const float* gRun = gSums + int64_t(i / width) * 2 * C + c;
    one += mul * gRun[0];
    n += mul * gRun[C];
  }
  one = sum_of_team(one, team, warps) / count;
  n = sum_of_team(n, team, warps + kWarp) / count;
  for (int c = team.rank; c < width; c += team.size) {
    gRow[kOfOne * C + c] = one;
    gRow[kOfX * C + c] = n * gRow[kRstd * C + c];
  }
}

template <class T, bool kAligned>
__global__ void __launch_bounds__(kThreads, kBlocks<kAligned>) norm_act_channels_dx_kernel(NormCall p) {
  constexpr int V = kPiece<T>;
  const ChannelPlace<T> at(p);
  if (at.channels <= 0) return;
  T* gDx = static_cast<T*>(p.out) + int64_t(at.frame) * p.pixels * p.C + at.c;
  float rMean[V], rMul[V], rAdd[V], rOfOne[V], rOfX[V];
  load_field<V, kAligned>(rMean, p, kMean, at.frame, at.c, 0);
  load_field<V, kAligned>(rMul, p, kMul, at.frame, at.c, 1);
  load_field<V, kAligned>(rAdd, p, kAdd, at.frame, at.c, 0);
  load_field<V, kAligned>(rOfOne, p, kOfOne, at.frame, at.c, 0);
  load_field<V, kAligned>(rOfX, p, kOfX, at.frame, at.c, 0);

  for_pixels<T, kAligned>(p, at, true, [&](int pixel, const Piece<T>& x, Piece<T> dx) {
    // (5) dx = du * mul - of_one - (x - mean) * of_x
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float centred = x.value[i] - rMean[i];
      dx.value[i] *= slope(centred * rMul[i] + rAdd[i], p.silu);
      if (p.table) dx.value[i] = dx.value[i] * rMul[i] - rOfOne[i] - centred * rOfX[i];
    }
    store_piece<T, kAligned>(gDx + int64_t(pixel) * p.C, dx, at.channels);
  });
}

template <class T, bool kAligned>
__global__ void __launch_bounds__(kThreads) norm_act_pixels_bwd_kernel(NormCall p) {
  constexpr int V = kPiece<T>, kPieces = kBwdPieces<sizeof(T)>;
  extern __shared__ float shared[];  // kThreads * 2 V
  __shared__ float warps[4 * kWarp];
  const Team team = this_team(p.cut.columns);
  const int teams = kThreads / p.cut.columns;
  const int frame = blockIdx.x / p.cut.runs, run = blockIdx.x % p.cut.runs;
  const int end = min(p.pixels, run * p.cut.run + p.cut.run);
  const T* gX = p.x.frame<T>(frame, p.frames_of_clip);
  const T* gGrad = p.other.frame<T>(frame, p.frames_of_clip);
  T* gDx = static_cast<T*>(p.out) + int64_t(frame) * p.pixels * p.C;
  float rSums[kPieces][2 * V] = {};  // of du, then of du * n

  for (int first = run * p.cut.run; first < end; first += teams) {
    const int pixel = first + threadIdx.x / p.cut.columns;
    uint4 rX[kPieces] = {}, rGrad[kPieces] = {};  // of a pixel that is not there: zeros, which add nothing to the sums
    if (pixel < end) {
      const T* gOne = gX + p.x.pixels.at(pixel);
      const T* gOther = gGrad + p.other.pixels.at(pixel);
      for_pieces<T, kPieces>(team, p.C, [&](int j, int c) {
        if (c >= p.C) return;
        rX[j] = load_bits<T, kAligned>(gOne + c, p.C - c);
        rGrad[j] = load_bits<T, kAligned>(gOther + c, p.C - c);
      });
    }
    const Moments of_pixel = moments_of_pixel<T, kAligned>(rX, team, p, warps);
    float rDn[kPieces][V] = {};
    float mean_1 = 0, mean_n = 0;
    for_pieces<T, kPieces>(team, p.C, [&](int j, int c) {
      if (c >= p.C) return;
      float rMul[V], rAdd[V];
      load_field<V, kAligned>(rMul, p, kMul, frame, c, 1);
      load_field<V, kAligned>(rAdd, p, kAdd, frame, c, 0);
      const Piece<T> x = unpacked<T>(rX[j]), grad = unpacked<T>(rGrad[j]);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const float n = (x.value[i] - of_pixel.mean) * of_pixel.rstd;
        const float du = grad.value[i] * slope(n * rMul[i] + rAdd[i], p.silu);
        // (7) sum_1 += du, sum_n += du * n
        rSums[j][i] += du;
        rSums[j][V + i] += du * n;
        rDn[j][i] = du * rMul[i];
        mean_1 += rDn[j][i];
        mean_n += rDn[j][i] * n;
      }
    });
    // (6) dx = rstd (dn - mean(dn) - n mean(dn n))
    mean_n = sum_of_team(mean_n, team, warps + 2 * kWarp) / p.C;
    mean_1 = p.centred ? sum_of_team(mean_1, team, warps + 3 * kWarp) / p.C : 0;
    for_pieces<T, kPieces>(team, p.C, [&](int j, int c) {
      if (c >= p.C || pixel >= end) return;
      Piece<T> dx = unpacked<T>(rX[j]);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const float n = (dx.value[i] - of_pixel.mean) * of_pixel.rstd;
        dx.value[i] = of_pixel.rstd * (rDn[j][i] - mean_1 - n * mean_n);
      }
      store_piece<T, kAligned>(gDx + int64_t(pixel) * p.C + c, dx, p.C - c);
    });
  }

  if (p.sums == nullptr) return;
  float* gSums = p.sums + int64_t(blockIdx.x) * 2 * p.C;
  for_pieces<T, kPieces>(team, p.C, [&](int j, int c) {
    // (7) teams added pairwise
    sum_of_rows(rSums[j], p.cut.columns, shared);
    if (threadIdx.x >= p.cut.columns || c >= p.C) return;
    float rOne[V], rN[V];
#pragma unroll
    for (int i = 0; i < V; ++i) rOne[i] = rSums[j][i], rN[i] = rSums[j][V + i];
    store_floats<V, kAligned>(gSums + c, rOne, p.C - c);
    store_floats<V, kAligned>(gSums + p.C + c, rN, p.C - c);
  });
}

// sums (clips, runs, 2, C), runs: of a clip.
template <int = 0>
__global__ void __launch_bounds__(kSlices* kWarp)
    norm_act_parameters_kernel(NormActBackwardParams p, const float* sums, int64_t runs) {
  __shared__ float shared[2 * kSlices * kWarp];
  const int slice = threadIdx.x / kWarp;
  const int64_t c = int64_t(blockIdx.x) * kWarp + lane_id();
  const bool is_there = c < p.C;
  const auto at = [=](const void* vector, int64_t i, float without) {
    return vector && is_there ? static_cast<const float*>(vector)[i] : without;
  };
  const auto put = [=](void* vector, int64_t i, float value) {
    if (vector && is_there && slice == 0) static_cast<float*>(vector)[i] = value;
  };
  const float weight = at(p.norm.weight, c, 1), bias = at(p.norm.bias, c, 0);
  float dweight = 0, dbias = 0;
  for (int64_t b = 0; b < p.B; ++b) {
    float rSums[2] = {};
    for (int64_t run = slice; run < runs && is_there; run += kSlices) {
      const float* gRun = sums + (b * runs + run) * 2 * p.C + c;
      rSums[0] += gRun[0];
      rSums[1] += gRun[p.C];
    }
    sum_of_rows(rSums, kWarp, shared);
    // (8) dscale = weight sum_n + bias sum_1, dshift = sum_1
    put(p.dscale, b * p.C + c, weight * rSums[1] + bias * rSums[0]);
    put(p.dshift, b * p.C + c, rSums[0]);
    // (9) dweight += (1 + scale) sum_n, dbias += (1 + scale) sum_1
    const float factor = 1 + at(p.norm.scale, b * p.C + c, 0);
    dweight += factor * rSums[1];
    dbias += factor * rSums[0];
  }
  put(p.dweight, c, dweight);
  put(p.dbias, c, dbias);
}

}  // namespace vdiff::norms
