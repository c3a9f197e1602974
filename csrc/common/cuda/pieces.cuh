// Rows in pieces of 16 bytes, between memory and accumulators. What one thread computes of a piece is the same whether the piece
// is moved at once or, where the rows' alignment or length does not allow it, element by element. For .cu files. No torch.
#pragma once

#include <cstring>

#include "common/cuda/load.cuh"
#include "common/cuda/shared_tile.h"
#include "common/cuda/store.cuh"

namespace vdiff {

template <class T>
struct Piece {
  acc_t<T> value[kPiece<T>];
};

// The bits of `count` elements; zeros behind them. kAligned: of all of them, at an address that 16 divides.
template <class T, bool kAligned>
__device__ uint4 load_bits(const T* from, int count) {
  uint4 bits;
  if constexpr (kAligned) {
    bits = *reinterpret_cast<const uint4*>(from);
  } else {
    T elements[kPiece<T>];
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i) elements[i] = i < count ? from[i] : T{};
    memcpy(&bits, elements, sizeof(bits));
  }
  return bits;
}

template <class T>
__device__ Piece<T> unpacked(const uint4& bits) {
  T elements[kPiece<T>];
  memcpy(elements, &bits, sizeof(bits));
  Piece<T> piece;
#pragma unroll
  for (int i = 0; i < kPiece<T>; ++i) piece.value[i] = load_acc(&elements[i]);
  return piece;
}

__device__ inline uint4 packed(const Piece<float>& piece) {
  uint4 bits;
  memcpy(&bits, piece.value, sizeof(bits));
  return bits;
}
template <class T>
__device__ uint4 packed(const Piece<T>& piece) {
  const auto& v = piece.value;
  return {ptx::pack<T>(v[0], v[1]), ptx::pack<T>(v[2], v[3]), ptx::pack<T>(v[4], v[5]), ptx::pack<T>(v[6], v[7])};
}

template <class T, bool kAligned>
__device__ void store_piece(T* to, const Piece<T>& piece, int count) {
  if constexpr (kAligned) {
    *reinterpret_cast<uint4*>(to) = packed(piece);
  } else {
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i) {
      if (i < count) store_acc(to + i, piece.value[i]);
    }
  }
}

// `count` floats of kCount from a row of them; the others are `rest`. kAligned: of all of them, at an address that 16 divides.
template <int kCount, bool kAligned>
__device__ void load_floats(float (&to)[kCount], const float* from, int count, float rest = 0) {
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    if constexpr (kAligned) {
      const float4 four = *reinterpret_cast<const float4*>(from + i);
      to[i] = four.x, to[i + 1] = four.y, to[i + 2] = four.z, to[i + 3] = four.w;
    } else {
#pragma unroll
      for (int j = i; j < i + 4; ++j) to[j] = j < count ? from[j] : rest;
    }
  }
}

template <int kCount, bool kAligned>
__device__ void store_floats(float* to, const float (&from)[kCount], int count) {
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    if constexpr (kAligned) {
      *reinterpret_cast<float4*>(to + i) = {from[i], from[i + 1], from[i + 2], from[i + 3]};
    } else {
#pragma unroll
      for (int j = i; j < i + 4; ++j) {
        if (j < count) to[j] = from[j];
      }
    }
  }
}

}  // namespace vdiff
