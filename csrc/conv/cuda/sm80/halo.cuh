// A tile's operand in shared memory: its pixels with those around them, a row of 64 bytes of channels each, as the taps read them.
// A thread normalises the very pieces that it copied, once they are there, and so waits for no other.
#pragma once

#include "common/cuda/activation.cuh"
#include "common/cuda/pieces.cuh"
#include "common/cuda/tile_product.cuh"
#include "conv/cuda/planes.h"

namespace vdiff::convolution {

// Pieces of rows turned so that neither eight neighbours' pieces nor two neighbouring pieces of four of them meet in a bank,
// wherever the neighbours begin.
struct HaloRows {
  static constexpr int kRowBytes = product::kChunkBytes, kPieces = kRowBytes / 16;

  __device__ static int turn(int pixel) { return pixel & 2 | pixel >> 2 & 1; }
  __device__ static int offset(int pixel, int piece) { return pixel * kRowBytes + (piece ^ turn(pixel)) * 16; }  // in bytes
};

// kBytes of a piece of which so many elements are there; zeros behind them.
template <int kBytes, class T>
__device__ void copy_units(char* to, const T* from, int count) {
#pragma unroll
  for (int i = 0; i < 16 / kBytes; ++i) {
    const int element = i * kBytes / int(sizeof(T));
    if constexpr (kBytes >= 4) {
      ptx::copy_async<kBytes>(ptx::shared_address(to) + i * kBytes, from + element, element < count);
    } else {
      reinterpret_cast<T*>(to)[i] = element < count ? from[element] : T{};
    }
  }
}

template <bool kWide, class T>
__device__ void copy_piece(char* to, const T* from, int count, int bytes) {
  if (kWide || bytes == 16) {
    ptx::copy_async<16>(ptx::shared_address(to), from, count > 0);
  } else if (sizeof(T) == 4 || bytes == 4) {
    copy_units<4>(to, from, count);
  } else {
    copy_units<sizeof(T)>(to, from, count);
  }
}

// The channels from c on of a frame's pixel, where they lie in shared memory. Those behind the last stay zero: so does the table.
template <bool kWide, class T>
__device__ void prepare_piece(char* at, const Prologue& p, int frame, int c, int C) {
  constexpr int V = kPiece<T>;
  uint4& bits = *reinterpret_cast<uint4*>(at);
  Piece<T> x = unpacked<T>(bits);
  if (p.mix) {
    const float factor = 1 - p.mix[frame];
#pragma unroll
    for (float& one : x.value) one *= factor;
  } else {
    float mean[V] = {}, mul[V], add[V] = {};
    if (p.table) {
      load_floats<V, kWide>(mean, p.field(norms::kMean, frame, C) + c, C - c);
      load_floats<V, kWide>(mul, p.field(norms::kMul, frame, C) + c, C - c);
      load_floats<V, kWide>(add, p.field(norms::kAdd, frame, C) + c, C - c);
    }
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float u = p.table ? (x.value[i] - mean[i]) * mul[i] + add[i] : x.value[i];
      x.value[i] = activated(u, p.silu);
    }
  }
  bits = packed(x);
}

// body(offset, line, column, there) for each piece of this thread: where it lies in the halo, and which pixel of the plane that is.
template <class T, int kAcross, class Body>
__device__ void for_halo(const Tiling& p, const TilePlace& at, const Body& body) {
  constexpr int kPieces = HaloRows::kPieces;
  const int width = p.halo_columns.value(), pixels = (p.tiles.lines + 2) * width;
#pragma unroll 1
  for (int pixel = threadIdx.x / kPieces; pixel < pixels; pixel += kThreads / kPieces) {
    const int down = p.halo_columns.quotient(pixel);
    const int line = at.line + down - 1, column = at.column + pixel - down * width - kAcross / 2;
    const bool there = unsigned(line) < unsigned(p.lines) && unsigned(column) < unsigned(p.columns);
    body(HaloRows::offset(pixel, threadIdx.x % kPieces), line, column, there);
  }
}

// The product's main loop has no register to spare for where the tile begins: it is found again for each chunk.
template <class T, int kAcross, bool kWide>
class Halo {
 public:
  // C: channels of x.
  __device__ Halo(const Tiling& p, int tile, const Planes& x, const Prologue& prologue, int C)
      : p_(p), x_(x), prologue_(prologue), tile_(tile), C_(C) {}

  // Begins to copy the channels from `first` on.
  __device__ void copy(char* sHalo, int first) const {
    const TilePlace at(p_, ptx::opaque(tile_));
    const int c = first + threadIdx.x % HaloRows::kPieces * kPiece<T>;
    const T* const gX = static_cast<const T*>(x_.data) + x_.at(at.plane) + c;
    for_halo<T, kAcross>(p_, at, [&](int offset, int line, int column, bool there) {
      copy_piece<kWide>(sHalo + offset, there ? gX + x_.at(line, column) : gX, there ? C_ - c : 0, x_.bytes);
    });
  }

  // Once the thread's own copies are there. What is not there stays zero.
  __device__ void prepare(char* sHalo, int first) const {
    const int c = first + threadIdx.x % HaloRows::kPieces * kPiece<T>;
    if (prologue_.is_nothing() || c >= C_) return;
    const TilePlace at(p_, ptx::opaque(tile_));
    for_halo<T, kAcross>(p_, at, [&](int offset, int line, int, bool there) {
      if (there) prepare_piece<kWide, T>(sHalo + offset, prologue_, p_.frame(at.plane, line), c, C_);
    });
  }

 private:
  const Tiling& p_;
  const Planes& x_;
  const Prologue& prologue_;
  int tile_, C_;
};

}  // namespace vdiff::convolution
