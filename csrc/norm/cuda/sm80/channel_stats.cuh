// channel_stats: mean and biased variance of every channel of every frame, over its pixels.   contract: DESIGN.md 4
//
//   P = H*W pixels a frame; a block takes `channels` neighbouring channels (a power of two up to 32, the first that holds C) of
//   kChunkPixels pixels, `rows` = kThreads / channels pixels at a time.
//
//   grid   (B*T * ceil(P / kChunkPixels) * ceil(C / channels), 1, 1)    x alone, so 65,535 is no limit; cut by shape alone
//   block  kThreads threads                   thread = row * channels + channel: a warp reads runs of neighbouring channels
//   smem   kThreads * 3 acc = 3 KiB, float64 6 KiB (struct SharedMemory)
//   bytes  P*C elements a frame, read once, and 2 acc a channel and chunk, written and read back where there are chunks to merge
//   flops  5 * P*C a frame                    1.25 per byte of fp32: memory-bound on every GPU we build for
//   acc    fp32, float64 for float64; counts are acc too (exact up to 2^24; beyond that, rounded weights)
//   exact  never E[x^2] - E[x]^2: deviations from the mean of kGroup values, merged after Chan, Golub and LeVeque 1979; the
//          pivot keeps the rounding of means far larger than the deviations out of them
//   order  rows, then chunks, are merged in an order fixed by the shape: bit-equal in every run
//   limits B*T*ceil(P / kChunkPixels)*ceil(C / channels) < 2^31 (the launcher checks); offsets are 64-bit
//
//   pivot = the frame's first pixel
//   m, s = mean and sum of squared deviations of kGroup pixels x - pivot (1)
//   (m, s) merged into the thread's own, group by group                  (2)
//   threads of a channel merged pairwise in shared memory                (3)
//   stats = pivot + m, s / count; a chunk of several: m, s / count       (4)
//
// channel_stats_merge: the chunks' means m and variances v into those of the frame, front to back
//
//   grid   (ceil(B*T*C / kThreads), 1, 1)     a thread per frame and channel
//
//   mean = sum of count m / P                                            (5)
//   stats = pivot + mean, sum of count (v + (m - mean)^2) / P            (6)
#pragma once

#include "common/cuda/load.cuh"
#include "norm/cuda/plan.h"

namespace vdiff::statistics {

template <class A>
constexpr int kGroup = 32 / sizeof(A);  // loads in flight a thread: 8, float64 4

template <class A>
struct Moments {
  A count;
  A mean;
  A squares;  // sum of squared deviations from mean
};

template <class A>
struct SharedMemory {
  A count[kThreads];
  A mean[kThreads];
  A squares[kThreads];

  __device__ Moments<A> get(int i) const { return {count[i], mean[i], squares[i]}; }
  __device__ void set(int i, Moments<A> m) {
    count[i] = m.count;
    mean[i] = m.mean;
    squares[i] = m.squares;
  }
};

template <class A>
__device__ Moments<A> merge(Moments<A> a, Moments<A> b) {
  if (b.count == 0) return a;
  const A count = a.count + b.count;
  const A weight = b.count / count;
  const A delta = b.mean - a.mean;
  // delta is squared last: where a is empty, a large mean must not become infinity * 0.
  return {count, a.mean + delta * weight, a.squares + b.squares + delta * (a.count * weight) * delta};
}

template <class T>
__device__ const T* frame_of(const ChannelStatsParams& p, int64_t frame) {  // (H, W, C)
  return static_cast<const T*>(p.x) + frame / p.T * p.stride_x.b + frame % p.T * p.stride_x.t;
}

// p: a frame whose rows follow one another evenly comes as one row (H 1, W P).
// partials (B*T, chunks, C, 2) acc: mean - pivot and biased variance of each chunk; unused where chunks is 1.
template <class T>
__global__ void __launch_bounds__(kThreads) channel_stats_kernel(
    ChannelStatsParams p, acc_t<T>* partials, int channels, int64_t tiles, int64_t chunks) {
  using A = acc_t<T>;
  __shared__ SharedMemory<A> shared;

  const int rows = kThreads / channels;
  const int row = threadIdx.x / channels;
  const int64_t frame_chunk = blockIdx.x / tiles;
  const int64_t c = (blockIdx.x % tiles) * channels + threadIdx.x % channels;
  const int64_t frame = frame_chunk / chunks;
  const int64_t start = frame_chunk % chunks * kChunkPixels;
  const int pixels = static_cast<int>(min(p.H * p.W - start, int64_t(kChunkPixels)));
  const int64_t start_w = start % p.W;
  const T* gFrame = frame_of<T>(p, frame) + c;        // (H, W) of one channel
  const T* gX = gFrame + start / p.W * p.stride_x.h;  // from the chunk's first row

  const A rPivot = c < p.C && pixels > 0 ? load_acc(gFrame) : A(NAN);  // statistics of nothing are NaN
  Moments<A> rMoments = {0, 0, 0};
  for (int first = row; first < pixels && c < p.C; first += rows * kGroup<A>) {
    // (1) m, s = mean and sum of squared deviations of kGroup<A> pixels x - pivot
    A rX[kGroup<A>];
    A sum = 0;
#pragma unroll
    for (int i = 0; i < kGroup<A>; ++i) {
      const int pixel = first + i * rows;
      rX[i] = 0;
      if (pixel >= pixels) continue;
      const int64_t w = start_w + pixel;
      // pixel < kChunkPixels: at most one row down where rows are that long, and w fits 32 bits where they are not
      const int64_t down = p.W < kChunkPixels ? static_cast<uint32_t>(w) / static_cast<uint32_t>(p.W) : w >= p.W;
      rX[i] = load_acc(gX + down * p.stride_x.h + (w - down * p.W) * p.stride_x.w) - rPivot;
    }
#pragma unroll
    for (int i = 0; i < kGroup<A>; ++i) sum += rX[i];
    const int count = min((pixels - first + rows - 1) / rows, kGroup<A>);
    const A mean = sum / count;
    A squares = 0;
#pragma unroll
    for (int i = 0; i < kGroup<A>; ++i) {
      const A deviation = i < count ? rX[i] - mean : A(0);
      squares += deviation * deviation;
    }
    // (2) (m, s) merged into the thread's own
    rMoments = merge(rMoments, Moments<A>{A(count), mean, squares});
  }

  // (3) threads of a channel merged pairwise in shared memory
  shared.set(threadIdx.x, rMoments);
  for (int half = rows / 2; half > 0; half /= 2) {
    __syncthreads();
    if (row < half) {
      rMoments = merge(rMoments, shared.get(threadIdx.x + half * channels));
      shared.set(threadIdx.x, rMoments);
    }
  }

  // (4) stats = pivot + m, s / count
  if (row == 0 && c < p.C) {
    const bool whole = chunks == 1;
    A* gOut = (whole ? static_cast<A*>(p.stats) : partials) + (frame_chunk * p.C + c) * 2;
    gOut[0] = whole ? rPivot + rMoments.mean : rMoments.mean;
    gOut[1] = rMoments.squares / rMoments.count;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    channel_stats_merge_kernel(ChannelStatsParams p, const acc_t<T>* partials, int64_t chunks) {
  using A = acc_t<T>;
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= p.B * p.T * p.C) return;
  const int64_t frame = index / p.C, c = index % p.C, pixels = p.H * p.W;
  const A* gPartial = partials + (frame * chunks * p.C + c) * 2;  // (chunks, C, 2) of one channel
  const auto count = [=](int64_t chunk) { return A(min(pixels - chunk * kChunkPixels, int64_t(kChunkPixels))); };

  // (5) mean = sum of count m / P
  A sum = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += count(chunk) * gPartial[chunk * p.C * 2];
  const A mean = sum / A(pixels);
  // (6) stats = pivot + mean, sum of count (v + (m - mean)^2) / P
  A squares = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const A* gChunk = gPartial + chunk * p.C * 2;
    const A deviation = gChunk[0] - mean;
    squares += count(chunk) * (gChunk[1] + deviation * deviation);
  }
  A* gOut = static_cast<A*>(p.stats) + index * 2;
  gOut[0] = load_acc(frame_of<T>(p, frame) + c) + mean;
  gOut[1] = squares / A(pixels);
}

}  // namespace vdiff::statistics
