// What changes x, and grad, on their way into a product (tile_product.cuh: Changed): h = norm(x) + pos_emb, by numbers that are
// known before; g = gate * grad.
//
// positions: the norm's table with pos_emb added, a row of it for each frame
//   grid   (ceil(B*T*C / 256), 1, 1)   a thread a frame and channel
//   bytes  12 an entry read, with 4 of pos_emb, 12 written
#pragma once

#include "common/cuda/launch.cuh"
#include "common/cuda/pieces.cuh"
#include "common/cuda/row_line.h"
#include "common/cuda/tile_product.cuh"
#include "linear/cuda/plan.h"

namespace vdiff::linear {

// So many bytes in shared memory are changed by body(values, i): four floats of a piece of 16 bytes, else one, from element i on.
template <class T, int kBytes, class Body>
__device__ void change(char* part, const Body& body) {
  if constexpr (kBytes == 16) {
    uint4* const bits = reinterpret_cast<uint4*>(part);
    Piece<T> piece = unpacked<T>(*bits);
#pragma unroll
    for (int i = 0; i < kPiece<T>; i += 4) body(reinterpret_cast<float(&)[4]>(piece.value[i]), i);
    *bits = packed(piece);
  } else {
#pragma unroll
    for (int i = 0; i < kBytes / int(sizeof(T)); ++i) {
      T* const element = reinterpret_cast<T*>(part) + i;
      float values[1] = {load_acc(element)};
      body(values, i);
      store_acc(element, values[0]);
    }
  }
}

// What x is normalised by: nothing; numbers of channels; and of layer and rms norms numbers of pixels, too.
enum NumbersOf { kNothing, kChannels, kPixels };

struct Numbers {
  const float* table;     // rows of mean, mul, add: of each channel
  const float2* moments;  // (M,) mean and rstd of each pixel, where they are kPixels'
  Divisor pixels;         // of a row
  int C, fields;
  NumbersOf of;
};

// x to h = (x - mean) mul + add, or (x - mean) rstd mul + add, mean and rstd the pixel's; rounded to T.
template <class T, int kOf>
struct Normalised : Numbers {
  template <int kBytes>
  __device__ void apply(char* part, int pixel, int c) const {
    const float* const row = table + int64_t(pixels.quotient(pixel)) * fields * C + c;
    float2 of_pixel;
    if constexpr (kOf == kPixels) of_pixel = moments[pixel];
    change<T, kBytes>(part, [&](auto& values, int i) {
      constexpr int kCount = sizeof(values) / sizeof(float);
      float mean[kCount], mul[kCount], add[kCount];
      load<kCount>(mul, row + C + i);
      load<kCount>(add, row + 2 * C + i);
      if constexpr (kOf == kChannels) load<kCount>(mean, row + i);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        const float n = kOf == kPixels ? (values[j] - of_pixel.x) * of_pixel.y : values[j] - mean[j];
        values[j] = n * mul[j] + add[j];
      }
    });
  }

 private:
  // Four where the rows of x are whole pieces.
  template <int kCount>
  __device__ static void load(float (&to)[kCount], const float* from) {
    if constexpr (kCount == 4) {
      load_floats<4, true>(to, from, 4);
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) to[i] = from[i];
    }
  }
};

// body(IntTag<of>{})
template <class Body>
void dispatch_numbers(NumbersOf of, const Body& body) {
  of == kNothing ? body(IntTag<kNothing>{}) : of == kChannels ? body(IntTag<kChannels>{}) : body(IntTag<kPixels>{});
}

// grad to gate * grad, rounded to T.
template <class T>
struct Gated {
  const float* gate;  // (B, Co)
  Divisor pixels;     // of a clip
  int Co;

  template <int kBytes>
  __device__ void apply(char* part, int pixel, int c) const {
    const float* const row = gate + int64_t(pixels.quotient(pixel)) * Co + c;
    change<T, kBytes>(part, [&](auto& values, int i) {
#pragma unroll
      for (int j = 0; j < int(sizeof(values) / sizeof(float)); ++j) values[j] *= row[i + j];
    });
  }
};

// norm_table: null where there is no norm. out (frames, kPositionFields, C).
template <int = 0>
__global__ void __launch_bounds__(kThreads)
    positions_kernel(const float* norm_table, const float* pos_emb, float* out, int frames, int C, int frames_of_row, int T) {
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= int64_t(frames) * C) return;
  const int frame = int(divide(index, C)), c = int(index - int64_t(frame) * C);
  float* const to = out + int64_t(frame) * kPositionFields * C + c;
  const float* const from = norm_table + int64_t(frame / frames_of_row) * norms::kFields * C + c;
  to[0] = norm_table == nullptr ? 0 : from[0];
  to[C] = norm_table == nullptr ? 1 : from[C];
  to[2 * C] = (norm_table == nullptr ? 0 : from[2 * C]) + pos_emb[int64_t(frame % T) * C + c];
}

// Makes the numbers, in the scratch, where there are any.
template <class Params>
Numbers launch_numbers(const Params& p, const NumbersPlan& plan, void* scratch, cudaStream_t stream) {
  auto* const table = static_cast<float*>(scratch);
  float* const moments = table + plan.norm.table_floats;
  float* const positions = table + plan.positions;
  const bool has_norm = plan.norm.table_floats > 0, has_positions = p.pos_emb != nullptr;
  if (has_norm) launch_norm_numbers(norm_of(p), table, moments, stream);
  launch("positions_kernel", positions_kernel<>, plan.positioned, stream, has_norm ? table : nullptr,
         static_cast<const float*>(p.pos_emb), positions, int(p.B * p.T), int(p.C), plan.norm.frames_of_row, int(p.T));
  Numbers numbers = {};
  numbers.of = plan.norm.moments_floats > 0 ? kPixels : plan.floats > 0 ? kChannels : kNothing;
  numbers.table = has_positions ? positions : table;
  numbers.moments = reinterpret_cast<const float2*>(moments);
  numbers.pixels = Divisor((has_positions ? 1 : plan.norm.frames_of_row) * p.pixels());
  numbers.C = int(p.C), numbers.fields = has_positions ? kPositionFields : norms::kFields;
  return numbers;
}

}  // namespace vdiff::linear
