// Tiles of rows in shared memory, and the shapes of their products. Plans measure them on the host: no CUDA header, no torch, no
// STL.
#pragma once

#include <cstdint>

#include "common/scalar.h"

#ifdef __CUDACC__
#define VDIFF_HOST_DEVICE __host__ __device__
#else
#define VDIFF_HOST_DEVICE
#endif

namespace vdiff {

// ------------------------------------------------------------------------------------------------------------ shared memory

// Rows come in pieces: what one thread moves and computes at a time.
constexpr int kPieceBytes = 16;
template <class T>
constexpr int kPiece = kPieceBytes / sizeof(T);  // elements

constexpr int kColumns = 16;  // columns come in chunks of 16: what a product goes by

VDIFF_HOST_DEVICE inline int padded_columns(int64_t D) { return (int(D) + kColumns - 1) / kColumns * kColumns; }

// Elements from row to row: an odd number of 16-byte pieces, so that the pieces of eight rows lie in different banks.
template <class T>
VDIFF_HOST_DEVICE int row_elements(int64_t D) {
  return padded_columns(D) + kPiece<T>;
}

// Rows, one sequence's after the other's. gap: elements after those of a sequence, so that rows of neighbouring sequences that
// are moved as one span lie in different banks.
template <class T>
struct SharedTile {
  T* data;
  int ld;  // row_elements<T>(D)
  int gap = 0;

  VDIFF_HOST_DEVICE T* row(int i) const { return data + i * ld; }
  VDIFF_HOST_DEVICE T* row(int sequence, int rows, int i) const { return data + sequence * (rows * ld + gap) + i * ld; }
  VDIFF_HOST_DEVICE SharedTile of_sequence(int sequence, int rows) const { return {row(sequence, rows, 0), ld}; }
};

// The bytes of a Memory, a struct of what lies in shared memory: from where it begins to its `end`, wherever that is.
template <class Memory, class... Sizes>
int64_t bytes_of(Sizes... sizes) {
  char* const base = reinterpret_cast<char*>(uintptr_t(16));
  return Memory(base, sizes...).end - base;
}

// ----------------------------------------------------------------------------------------------------------------- products

// Tiles of the scores of up to kRows queries and kKeys keys.
template <int kQueries, int kAllKeys>
struct Shape {
  static constexpr int kRows = kQueries, kKeys = kAllKeys;
  static constexpr bool kPaired = kRows == 8;
  static constexpr int kM = kPaired ? 1 : kRows / 16;  // tiles of 16 queries
  static constexpr int kN = kKeys / 8;                 // of 8 keys
  static_assert(!kPaired || kKeys == 8, "a pair shares one tile");
};

// The floats of shared memory that a warp's Weights<S, T> take: those of float, rows of kWeightsLd.
template <class S>
constexpr int kWeightsLd = S::kN * 8 + 1;  // odd: neither rows nor columns meet in a bank
template <class S, class T>
constexpr int kWeightsFloats = 0;
template <class S>
constexpr int kWeightsFloats<S, float> = (S::kM * 16 * kWeightsLd<S> + 3) / 4 * 4;

}  // namespace vdiff
