// A block's tile of a matrix product a b, on tensor cores: the main loop, what it takes its operands from, and what becomes of
// the result. Half types by mma.m16n8k16. float by three products of tf32, m16n8k8: x = high + low, both rounded to tf32, and
// a b = low high + high low + high high, which leaves an error of 2^-22 of each |a b|, as little as the rounding of float sums.
//
//   block  8 warps, 4 down and 2 across       a warp has 32 x 64 of the tile's 128 x 128: 64 accumulators a lane
//   smem   3 stages of (128 + 128) rows of 64 bytes: 48 KiB. A stage is a chunk of 32 k, of float 16
//
//   for each chunk of k, while the next two are on their way:
//     wait for it; change it; barrier         (1)  which also says that everyone is done with the chunk before
//     begin to copy the chunk two ahead to where that one was            (2)
//     C += A B, both from shared memory                                  (3)
//
// The main loop knows its operands by loaders alone, a (kTileRows, K) and b (K, kTileColumns), and nothing of the result. A
// loader says where a part of a row of the operand's tile lies for a chunk of k, or that it is not there, which counts as zeros:
//
//   kAlongK          the tile's rows are those of a (columns of b), and hold a chunk's k; or there is a row for each k of it,
//                    of kTileRows elements
//   Row row(i)       what a thread keeps of row i of the tile; by value, asked once where rows are moved by 16 bytes
//   Source at(row, column, k)   the elements from `column` on in the chunk that begins at k
//   bytes            what one copy may move: 16, 4, or one element. A part of so many bytes is there as a whole, or not at all
//
// Of a Changed loader the elements are changed where they lie, once they have arrived: by the thread that copied them, after its
// own wait and before the barrier, so that this takes no barrier more. What is not there stays zeros.
//
// kWide: both are moved by 16 bytes. The ways to move less take registers, of which the main loop has none to spare.
#pragma once

#include "common/cuda/ptx.cuh"
#include "common/cuda/store.cuh"
#include "common/cuda/team.cuh"
#include "common/cuda/tile_shape.h"

namespace vdiff::product {

template <bool kWide>
constexpr int kBlocks = kWide ? 2 : 1;  // of a multiprocessor, that registers are kept for

constexpr int kM = kWarpRows / 16, kN = kWarpColumns / 8;  // tiles of 16 x 8, as in ptx.cuh, of a warp

using Accumulators = float[kM][kN][4];

__device__ inline int warp_row() { return threadIdx.x / kWarp % kWarpsDown * kWarpRows; }
__device__ inline int warp_column() { return threadIdx.x / (kWarp * kWarpsDown) * kWarpColumns; }

// ------------------------------------------------------------------------------------------------------------ shared memory

// Rows of 16-byte pieces, turned so that what is accessed at once lies in different banks: a piece of each of eight neighbouring
// rows, or, by fours, two neighbouring pieces of each of four.
template <class T, int kColumns, bool kByFours = false>
struct TurnedRows {
  static constexpr int kRowBytes = kColumns * int(sizeof(T)), kPieces = kRowBytes / 16;
  static constexpr int kTurns = kPieces < 8 ? kPieces : 8;
  static_assert(!kByFours || kPieces >= 8);

  __device__ static int turn(int row) { return kByFours ? row % 4 * 2 : row * kTurns / 8 % kTurns; }
  __device__ static int offset(int row, int piece) { return row * kRowBytes + (piece ^ turn(row)) * 16; }  // in bytes
};

template <class T, bool kAlongK>
struct OperandTile : TurnedRows<T, kAlongK ? kChunk<T> : kTileRows, !kAlongK && sizeof(T) == 4> {
  static constexpr int kRows = kAlongK ? kTileRows : kChunk<T>;
};
static_assert(kTileRows == kTileColumns, "operands have tiles of one size");

// ------------------------------------------------------------------------------------------------------------------ loaders

template <class T>
struct Source {
  const T* data;
  bool there;
};

// Of a matrix whose rows lie along k, from its first row of the tile on.
template <class T>
struct RowsAlongK {
  static constexpr bool kAlongK = true;
  const T* data;
  int64_t stride, rows;  // rows: that are there
  int K, bytes;

  using Row = Source<T>;
  __device__ Row row(int i) const { return {data + i * stride, i < rows}; }
  __device__ Source<T> at(const Row& row, int column, int k) const {
    return {row.data + (k + column), row.there && k + column < K};
  }
};

// Of a matrix that has a row for each k, from the tile's first column on.
template <class T>
struct RowsOfK {
  static constexpr bool kAlongK = false;
  const T* data;
  int64_t stride;
  int columns, K, bytes;  // columns: that are there

  using Row = int;
  __device__ Row row(int i) const { return i; }
  __device__ Source<T> at(Row i, int column, int k) const {
    return {data + (k + i) * stride + column, k + i < K && column < columns};
  }
};

// A loader of a part of a matrix whose elements change on their way: change.apply<kBytes>(part, row, column) does that to so many
// bytes in shared memory, which begin at an element of the matrix.
template <class Loader, class Change>
struct Changed : Loader {
  Change change;
  int first_row, first_column;  // of the matrix, where the tile and k begin

  template <int kBytes>
  __device__ void arrived(char* part, int i, int at, int k) const {
    change.template apply<kBytes>(part, first_row + i + (Loader::kAlongK ? 0 : k), first_column + at + (Loader::kAlongK ? k : 0));
  }
};
template <class Loader>
constexpr bool kIsChanged = false;
template <class Loader, class Change>
constexpr bool kIsChanged<Changed<Loader, Change>> = true;

// A thread's part in copying an operand's tile, by cp.async but for single halves.
template <class T, bool kWide, class Loader>
class OperandCopies {
  using Tile = OperandTile<T, Loader::kAlongK>;
  static constexpr int kStep = kThreads / Tile::kPieces;  // from one row of a thread to its next, by 16 bytes
  static constexpr int kOwn = Tile::kRows / kStep;
  static_assert(kStep % 8 == 0, "a thread's rows are turned alike");

 public:
  __device__ explicit OperandCopies(const Loader& loader)
      : loader_(loader), column_(int(threadIdx.x) % Tile::kPieces * kPiece<T>) {
    const int row = threadIdx.x / Tile::kPieces;
    to_ = Tile::offset(row, threadIdx.x % Tile::kPieces);
#pragma unroll
    for (int i = 0; i < kOwn; ++i) rows_[i] = loader.row(row + i * kStep);
  }

  __device__ void operator()(char* sTile, int k) const {
    if (kWide || loader_.bytes == 16) {
      const uint32_t to = ptx::shared_address(sTile) + to_;
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        const Source<T> from = loader_.at(rows_[i], column_, k);
        ptx::copy_async<16>(to + i * kStep * Tile::kRowBytes, from.data, from.there);
      }
    } else if (sizeof(T) == 4 || loader_.bytes == 4) {
      by<4>(sTile, k);
    } else {
      by<sizeof(T)>(sTile, k);
      __syncwarp();  // lanes may have parted, and go on to products that all must reach together
    }
  }

  // Before the barrier: what this thread has copied of a chunk that has arrived is changed.
  __device__ void arrived(char* sTile, int k) const {
    if (kWide || loader_.bytes == 16) {
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        if (!loader_.at(rows_[i], column_, k).there) continue;
        char* const part = sTile + to_ + i * kStep * Tile::kRowBytes;
        loader_.template arrived<16>(part, threadIdx.x / Tile::kPieces + i * kStep, column_, k);
      }
    } else if (sizeof(T) == 4 || loader_.bytes == 4) {
      arrived_by<4>(sTile, k);
    } else {
      arrived_by<sizeof(T)>(sTile, k);
    }
    __syncwarp();  // of lanes that have parted
  }

 private:
  // body(to, from, row, column): for each of this thread's units of so many bytes.
  template <int kBytes, class Body>
  __device__ void for_units(char* sTile, int k, const Body& body) const {
    constexpr int kUnits = Tile::kRowBytes / kBytes;
#pragma unroll 4
    for (int i = 0; i < Tile::kRows * kUnits / kThreads; ++i) {
      const int unit = i * kThreads + threadIdx.x, row = unit / kUnits, byte = unit % kUnits * kBytes;
      const int column = byte / int(sizeof(T));
      body(sTile + Tile::offset(row, byte / 16) + byte % 16, loader_.at(loader_.row(row), column, k), row, column);
    }
  }

  template <int kBytes>
  __device__ void by(char* sTile, int k) const {
    for_units<kBytes>(sTile, k, [](char* to, const Source<T>& from, int, int) {
      if constexpr (kBytes >= 4) {
        ptx::copy_async<kBytes>(ptx::shared_address(to), from.data, from.there);
      } else {
        *reinterpret_cast<T*>(to) = from.there ? *from.data : T{};
      }
    });
  }

  template <int kBytes>
  __device__ void arrived_by(char* sTile, int k) const {
    for_units<kBytes>(sTile, k, [=](char* to, const Source<T>& from, int row, int column) {
      if (from.there) loader_.template arrived<kBytes>(to, row, column, k);
    });
  }

  const Loader& loader_;
  int column_, to_;
  typename Loader::Row rows_[kOwn];
};

// ---------------------------------------------------------------------------------------------------------------- fragments

constexpr int kSteps = kChunkBytes / 32;  // of a chunk: 16 k, of float 8

// A warp's fragments of an operand: of a, 16 rows of the tile for each i; of b, 16 columns, which are two tiles of 8.
template <class T, bool kAlongK, bool kIsA>
class Fragments {
  using Tile = OperandTile<T, kAlongK>;

 public:
  // first: the warp's first row, or column, of the tile.
  __device__ explicit Fragments(int first) {
    const int lane = lane_id(), low = lane % 8, by_8 = lane / 8 % 2, by_16 = lane / 16;
    // Matrices of 8 x 16 bytes, four at once: a's go down first, b's along k.
    const int inner = kIsA ? by_8 : by_16, outer = kIsA ? by_16 : by_8;  // of rows of the operand; of k
    if constexpr (kAlongK) {
      from_ = Tile::offset(first + low + inner * 8, outer);
    } else if constexpr (sizeof(T) == 2) {
      from_ = Tile::offset(low + outer * 8, first / 8 + inner);
    } else {
      from_ = Tile::offset(lane % 4, first / 4 + lane / 16) + lane / 4 % 4 * 4;
    }
  }

  __device__ void load(uint32_t (&r)[4], const char* sTile, int i, int step) const {
    // What i or the step adds to the number of a piece are bits that the lane's own does not have: they go past its turn.
    if constexpr (kAlongK) {
      ptx::load_matrices(r, ptx::shared_address(sTile) + (from_ ^ step * 32) + i * 16 * Tile::kRowBytes);
    } else if constexpr (sizeof(T) == 2) {
      ptx::load_matrices_transposed(r, ptx::shared_address(sTile) + (from_ ^ i * 32) + step * 16 * Tile::kRowBytes);
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e) {  // of a: down, then along k; of b the other way round
        const int eight = kIsA ? e % 2 : e / 2, four = kIsA ? e / 2 : e % 2;
        const int offset = (from_ ^ (i * 64 + eight * 32)) + (step * 8 + four * 4) * Tile::kRowBytes;
        r[e] = *reinterpret_cast<const uint32_t*>(sTile + offset);
      }
    }
  }

 private:
  int from_;
};

// Values as sums of two of tf32.
struct HighLow {
  float high[4], low[4];

  __device__ explicit HighLow(const uint32_t (&r)[4]) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float x = __uint_as_float(r[e]);
      high[e] = ptx::to_tf32(x);
      low[e] = ptx::to_tf32(x - high[e]);
    }
  }
};

// rC += a b: the 16 rows of a by the two tiles of 8 columns of b.
template <class T>
struct Operand {
  uint32_t r[4];
  __device__ explicit Operand(const uint32_t (&from)[4]) : r{from[0], from[1], from[2], from[3]} {}
};
template <>
struct Operand<float> : HighLow {
  using HighLow::HighLow;
};

template <class T>
__device__ void multiply(float (&rC)[4], const Operand<T>& a, const Operand<T>& b, int half) {
  ptx::multiply<T>(rC, a.r, b.r[2 * half], b.r[2 * half + 1]);
}

__device__ inline void multiply(float (&rC)[4], const Operand<float>& a, const Operand<float>& b, int half) {
  ptx::multiply_tf32(rC, a.low, b.high[2 * half], b.high[2 * half + 1]);
  ptx::multiply_tf32(rC, a.high, b.low[2 * half], b.low[2 * half + 1]);
  ptx::multiply_tf32(rC, a.high, b.high[2 * half], b.high[2 * half + 1]);
}

// ---------------------------------------------------------------------------------------------------------------- main loop

template <class T>
__device__ int chunks_of(int K) {
  return (K + kChunk<T> - 1) / kChunk<T>;
}

// rC += a b over so many chunks of k. sStages: kSharedBytes, which finish() frees.
template <class T, bool kWide, class A, class B>
__device__ void tile_product(Accumulators& rC, char* sStages, const A& a, const B& b, int chunks) {
  const OperandCopies<T, kWide, A> copy_a(a);
  const OperandCopies<T, kWide, B> copy_b(b);
  const Fragments<T, A::kAlongK, true> of_a(warp_row());
  const Fragments<T, B::kAlongK, false> of_b(warp_column());
  constexpr int kOfA = kTileRows * kChunkBytes;
  const auto copy = [&](int chunk, int stage) {
    if (chunk < chunks) {
      char* const to = sStages + stage * kStageBytes;
      copy_a(to, chunk * kChunk<T>);
      copy_b(to + kOfA, chunk * kChunk<T>);
    }
    ptx::copy_commit();  // of nothing, too: the wait counts groups
  };
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) copy(stage, stage);

  int stage = 0;
#pragma unroll 1
  for (int chunk = 0; chunk < chunks; ++chunk) {
    // (1) wait for it; change it; barrier
    ptx::copy_wait<kStages - 2>();
    if constexpr (kIsChanged<A>) copy_a.arrived(sStages + stage * kStageBytes, chunk * kChunk<T>);
    if constexpr (kIsChanged<B>) copy_b.arrived(sStages + stage * kStageBytes + kOfA, chunk * kChunk<T>);
    __syncthreads();
    // (2) begin to copy the chunk two ahead
    copy(chunk + kStages - 1, stage == 0 ? kStages - 1 : stage - 1);
    // (3) C += A B
    const char* const sA = sStages + stage * kStageBytes;
#pragma unroll(sizeof(T) == 4 ? 1 : kSteps)
    for (int step = 0; step < kSteps; ++step) {
      const auto load = [&](const auto& fragments, const char* from, int i) {
        uint32_t r[4];
        fragments.load(r, from, i, step);
        return Operand<T>(r);
      };
      const Operand<T> rows[kM] = {load(of_a, sA, 0), load(of_a, sA, 1)};
      static_assert(kM == 2);
#pragma unroll
      for (int n = 0; n < kN; n += 2) {
        const Operand<T> columns = load(of_b, sA + kOfA, n / 2);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          multiply(rC[m][n], rows[m], columns, 0);
          multiply(rC[m][n + 1], rows[m], columns, 1);
        }
      }
    }
    stage = stage + 1 == kStages ? 0 : stage + 1;
  }
}

// After the products: from here on the stages' memory is the epilogue's.
__device__ inline void finish() {
  ptx::copy_wait<0>();
  __syncthreads();
}

// ------------------------------------------------------------------------------------------------------------- epilogue

// 16 rows of a warp on their way between the layout of accumulators and whole rows in memory, in shared memory of its own.
template <class T, int kColumns>
class WarpRows {
  using Rows = TurnedRows<T, kColumns, sizeof(T) == 4>;

 public:
  static constexpr int kBytes = 16 * Rows::kRowBytes;

  __device__ explicit WarpRows(char* data) : data_(data) {}

  // Elements `column`, which is even, and the next.
  __device__ T* pair(int row, int column) const {
    return reinterpret_cast<T*>(data_ + Rows::offset(row, column / kPiece<T>)) + column % kPiece<T>;
  }

  // kPart of the columns, from `first` on, to so many of rows that row_at(i) finds, by copies of `bytes`: 16, 4 or one element.
  template <int kPart = kColumns, class RowAt>
  __device__ void store(const RowAt& row_at, int columns, int bytes, int first = 0) const {
    move<kPart>(row_at, columns, bytes, first, [](auto* memory, auto* shared, bool there) {
      if (there) *memory = *shared;
    });
  }

  // From there; zeros where it ends.
  template <class RowAt>
  __device__ void load(const RowAt& row_at, int columns, int bytes) const {
    move<kColumns>(row_at, columns, bytes, 0, [](auto* memory, auto* shared, bool there) {
      if (there) {
        *shared = *memory;
      } else {
        *shared = {};
      }
    });
  }

 private:
  template <int kPart, class RowAt, class Move>
  __device__ void move(const RowAt& row_at, int columns, int bytes, int first, const Move& body) const {
    const auto by = [&](auto unit) {
      using Unit = decltype(unit);
      constexpr int kElements = sizeof(Unit) / sizeof(T), kUnits = kPart / kElements;
#pragma unroll 2
      for (int i = lane_id(); i < 16 * kUnits; i += kWarp) {
        const int row = i / kUnits, column = i % kUnits * kElements;
        const auto memory = row_at(row);
        auto* const at = as<Unit>(memory.data + column);
        body(at, as<Unit>(pair(row, first + column)), memory.there && column < columns);
      }
    };
    if (bytes == 16) {
      by(uint4{});
    } else if (sizeof(T) == 4 || bytes == 4) {
      by(uint32_t{});
    } else {
      by(T{});
    }
  }

  template <class Unit>
  __device__ static Unit* as(T* x) {
    return reinterpret_cast<Unit*>(x);
  }
  template <class Unit>
  __device__ static const Unit* as(const T* x) {
    return reinterpret_cast<const Unit*>(x);
  }

  char* data_;
};

// Rows of a matrix, of which so many are there.
template <class T>
struct MatrixRows {
  T* data;
  int64_t stride, rows;

  struct Row {
    T* data;
    bool there;
  };
  __device__ Row operator()(int i) const { return {data + i * stride, i < rows}; }
};

// The lane's pairs of a tile n of 8 columns: where they stand in the 16 rows and in the warp's columns.
__device__ inline int row_of_pair(int half) { return lane_id() / 4 + 8 * half; }
__device__ inline int column_of_pair(int n) { return 8 * n + lane_id() % 4 * 2; }

// rC to memory: row i of the block's tile goes to row_at(i).
template <class T, class RowAt>
__device__ void store_product(const Accumulators& rC, char* shared, const RowAt& row_at, int columns, int bytes) {
  using Rows = WarpRows<T, kWarpColumns>;
  const Rows sOut(shared + threadIdx.x / kWarp * Rows::kBytes);
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        store_pair(sOut.pair(row_of_pair(half), column_of_pair(n)), rC[m][n][2 * half], rC[m][n][2 * half + 1]);
      }
    }
    __syncwarp();
    sOut.store([&](int i) { return row_at(warp_row() + 16 * m + i); }, columns, bytes);
    __syncwarp();
  }
}

}  // namespace vdiff::product
