// channel_stats: mean and biased variance of every channel of every frame, over its pixels.   contract: DESIGN.md 4
//
//   P = H*W pixels a frame, V = 16 / sizeof(T) channels a piece: what a thread loads at once, or channel by channel where the
//   alignment does not allow it (computed alike). A block takes `columns` neighbouring pieces (a power of two up to 8, a line of
//   128 bytes) of kChunkPixels pixels, `rows` = kThreads / columns pixels at a time.
//
//   grid   (B*T * ceil(P / kChunkPixels) * ceil(C / V / columns), 1, 1)    x alone, so 65,535 is no limit; cut by shape alone
//   block  kThreads threads                   thread = row * columns + column: a warp reads runs of neighbouring channels
//   smem   kThreads * (1 + 2 V) acc: 17 KiB, float 9 KiB, float64 10 KiB (struct SharedMemory)
//   bytes  P*C elements a frame, read once, and 2 acc a channel and chunk, written and read back where there are chunks to merge
//   flops  5 * P*C a frame                    1.25 per byte of fp32: memory-bound on every GPU we build for
//   acc    fp32, float64 for float64; counts are acc too (exact up to 2^24; beyond that, rounded weights)
//   exact  never E[x^2] - E[x]^2: deviations from the mean of kGroup values, merged after Chan, Golub and LeVeque 1979; the
//          pivot keeps the rounding of means far larger than the deviations out of them
//   order  rows, then chunks, are merged in an order fixed by the shape: bit-equal in every run
//   limits the grid's blocks, B*T and P < 2^31 (the launcher checks); offsets are 64-bit
//
//   pivot = the frame's first pixel
//   m, s = mean and sum of squared deviations of kGroup pixels x - pivot (1) a channel each
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

#include "common/cuda/pieces.cuh"
#include "norm/cuda/images.h"
#include "norm/cuda/plan.h"

namespace vdiff::statistics {

template <class T>
constexpr int kGroup = 32 / kPiece<T>;  // pieces in flight a thread: 4, float 8; float64 has no more of them
template <>
constexpr int kGroup<double> = 4;

// Of the channels of a piece, which have all been seen as often.
template <class T>
struct Moments {
  acc_t<T> count;
  acc_t<T> mean[kPiece<T>];
  acc_t<T> squares[kPiece<T>];  // sum of squared deviations from mean
};

template <class T>
struct SharedMemory {
  acc_t<T> count[kThreads];
  acc_t<T> mean[kPiece<T>][kThreads];
  acc_t<T> squares[kPiece<T>][kThreads];

  __device__ Moments<T> get(int thread) const {
    Moments<T> m;
    m.count = count[thread];
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i) m.mean[i] = mean[i][thread], m.squares[i] = squares[i][thread];
    return m;
  }
  __device__ void set(int thread, const Moments<T>& m) {
    count[thread] = m.count;
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i) mean[i][thread] = m.mean[i], squares[i][thread] = m.squares[i];
  }
};

template <class T>
__device__ void merge(Moments<T>& a, const Moments<T>& b) {
  using A = acc_t<T>;
  if (b.count == 0) return;
  const A count = a.count + b.count;
  const A weight = b.count / count;
#pragma unroll
  for (int i = 0; i < kPiece<T>; ++i) {
    const A delta = b.mean[i] - a.mean[i];
    a.mean[i] += delta * weight;
    // delta is squared last: where a is empty, a large mean must not become infinity * 0.
    a.squares[i] += b.squares[i] + delta * (a.count * weight) * delta;
  }
  a.count = count;
}

struct StatsCall {
  Image x;  // its data is there
  void* stats;     // (B, T, C, 2) acc
  void* partials;  // (B*T, chunks, C, 2) acc: mean - pivot and biased variance of each chunk; unused where chunks is 1
  int C, frames, frames_of_clip, pixels, columns, tiles, chunks;
};

template <class T, bool kAligned>
__global__ void __launch_bounds__(kThreads) channel_stats_kernel(StatsCall p) {
  using A = acc_t<T>;
  constexpr int V = kPiece<T>;
  __shared__ SharedMemory<T> shared;

  const int rows = kThreads / p.columns;
  const int row = threadIdx.x / p.columns;
  const int frame_chunk = blockIdx.x / p.tiles;
  const int c = ((blockIdx.x % p.tiles) * p.columns + threadIdx.x % p.columns) * V, channels = p.C - c;
  const int frame = frame_chunk / p.chunks;
  const int start = frame_chunk % p.chunks * kChunkPixels, end = min(p.pixels, start + kChunkPixels);
  const T* gFrame = p.x.frame<T>(frame, p.frames_of_clip) + c;  // (H, W, V)

  const bool any = channels > 0 && p.pixels > 0;
  Piece<T> rPivot = {};
  if (any) rPivot = unpacked<T>(load_bits<T, kAligned>(gFrame, channels));
  Moments<T> rMoments = {};
  for (int first = start + row; first < end && channels > 0; first += rows * kGroup<T>) {
    // (1) m, s = mean and sum of squared deviations of kGroup pixels x - pivot
    uint4 rX[kGroup<T>] = {};
#pragma unroll
    for (int k = 0; k < kGroup<T>; ++k) {
      const int pixel = first + k * rows;
      if (pixel < end) rX[k] = load_bits<T, kAligned>(gFrame + p.x.pixels.at(pixel), channels);
    }
    const int count = min((end - first + rows - 1) / rows, kGroup<T>);
    Moments<T> group = {A(count)};
#pragma unroll
    for (int k = 0; k < kGroup<T>; ++k) {
      const Piece<T> x = unpacked<T>(rX[k]);
#pragma unroll
      for (int i = 0; i < V; ++i) group.mean[i] += k < count ? x.value[i] - rPivot.value[i] : A(0);
    }
#pragma unroll
    for (int i = 0; i < V; ++i) group.mean[i] /= group.count;
#pragma unroll
    for (int k = 0; k < kGroup<T>; ++k) {
      const Piece<T> x = unpacked<T>(rX[k]);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const A deviation = k < count ? x.value[i] - rPivot.value[i] - group.mean[i] : A(0);
        group.squares[i] += deviation * deviation;
      }
    }
    // (2) (m, s) merged into the thread's own
    merge(rMoments, group);
  }

  // (3) threads of a channel merged pairwise in shared memory
  shared.set(threadIdx.x, rMoments);
  for (int half = rows / 2; half > 0; half /= 2) {
    __syncthreads();
    if (row < half) {
      merge(rMoments, shared.get(threadIdx.x + half * p.columns));
      shared.set(threadIdx.x, rMoments);
    }
  }

  // (4) stats = pivot + m, s / count
  if (row != 0) return;
  const bool whole = p.chunks == 1;
  A* gOut = static_cast<A*>(whole ? p.stats : p.partials) + (int64_t(frame_chunk) * p.C + c) * 2;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (i >= channels) break;
    const A pivot = any ? rPivot.value[i] : A(NAN);  // statistics of nothing are NaN
    gOut[2 * i] = whole ? pivot + rMoments.mean[i] : rMoments.mean[i];
    gOut[2 * i + 1] = rMoments.squares[i] / rMoments.count;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) channel_stats_merge_kernel(StatsCall p) {
  using A = acc_t<T>;
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= int64_t(p.frames) * p.C) return;
  const int frame = int(divide(index, p.C)), c = int(index - int64_t(frame) * p.C);
  // (chunks, C, 2) of one channel
  const A* gPartial = static_cast<const A*>(p.partials) + (int64_t(frame) * p.chunks * p.C + c) * 2;
  const auto count = [=](int chunk) { return A(min(p.pixels - chunk * kChunkPixels, kChunkPixels)); };

  // (5) mean = sum of count m / P
  A sum = 0;
  for (int chunk = 0; chunk < p.chunks; ++chunk) sum += count(chunk) * gPartial[int64_t(chunk) * p.C * 2];
  const A mean = sum / A(p.pixels);
  // (6) stats = pivot + mean, sum of count (v + (m - mean)^2) / P
  A squares = 0;
  for (int chunk = 0; chunk < p.chunks; ++chunk) {
    const A* gChunk = gPartial + int64_t(chunk) * p.C * 2;
    const A deviation = gChunk[0] - mean;
    squares += count(chunk) * (gChunk[1] + deviation * deviation);
  }
  A* gOut = static_cast<A*>(p.stats) + index * 2;
  gOut[0] = load_acc(p.x.frame<T>(frame, p.frames_of_clip) + c) + mean;
  gOut[1] = squares / A(p.pixels);
}

}  // namespace vdiff::statistics
