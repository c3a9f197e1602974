// The bias gradient of one call: the score gradients of a head's sequences, summed over all of them.
//
//   chunks    units of work are split into chunks, at most kMaxChunks, by shapes alone; a chunk is worked on by one task for each
//             head, which has one table of double sums: no table a sequence, and bit-equal for every number of threads
//   scratch   at most kMaxTableBytes; where not even one table a head fits, the sums are made in dbias itself, in one chunk
//   order     within a chunk that of its units; chunks ascending
#pragma once

#include "attention/cpu/backward.h"
#include "common/cpu/parallel.h"

namespace vdiff {
inline namespace VDIFF_ISA {

constexpr int64_t kMaxChunks = 16;
constexpr int64_t kMaxTableBytes = int64_t(64) << 20;

template <class A>
class BiasGradient {
 public:
  // dbias: (N, entries) acc, null: not wanted, and then chunks are of unwanted_units units. Entry (i, j) of a head's table lies
  // at origin + row[i] + column[j].
  BiasGradient(
      void* dbias, int64_t N, int64_t entries, int64_t origin, const int64_t* row, const int64_t* column, int64_t units,
      int64_t unwanted_units)
      : dbias_(static_cast<A*>(dbias)),
        N_(N),
        entries_(entries),
        origin_(origin),
        row_(row),
        column_(column),
        fits_(max_of<int64_t>(N, 1) * entries * int64_t(sizeof(double)) <= kMaxTableBytes),
        units_(units),
        chunks_(dbias ? wanted_chunks() : ceil_div(units, unwanted_units)),
        tables_(dbias && fits_ ? N * chunks_ * entries : 0) {
    if (!dbias_) return;
    if (fits_) tables_.zero(N * chunks_ * entries);
    for (int64_t entry = 0; !fits_ && entry < N * entries; ++entry) dbias_[entry] = 0;
  }

  int64_t chunks() const { return chunks_; }
  int64_t first_unit(int64_t chunk) const { return chunk * units_ / chunks_; }
  int64_t last_unit(int64_t chunk) const { return (chunk + 1) * units_ / chunks_; }  // exclusive

  BiasSums<A> sums(int64_t chunk, int64_t n) {
    if (!dbias_) return {};
    if (!fits_) return {nullptr, dbias_ + n * entries_ + origin_, row_, column_};
    return {tables_ + (chunk * N_ + n) * entries_ + origin_, nullptr, row_, column_};
  }

  // After every task: dbias = the sum of a head's tables.
  void finish() {
    if (!dbias_ || !fits_) return;
    const int64_t block = 1024, blocks = ceil_div(N_ * entries_, block);
    parallel_for(0, blocks, min_of(block, N_ * entries_) * chunks_, [&](int64_t index) {
      const int64_t end = min_of((index + 1) * block, N_ * entries_);
      for (int64_t entry = index * block; entry < end; ++entry) {
        double total = 0;
        for (int64_t chunk = 0; chunk < chunks_; ++chunk) total += tables_[chunk * N_ * entries_ + entry];
        dbias_[entry] = A(total);
      }
    });
  }

 private:
  int64_t wanted_chunks() const {
    const int64_t bytes = max_of<int64_t>(N_ * entries_, 1) * int64_t(sizeof(double));
    const int64_t most = min_of(kMaxChunks, max_of<int64_t>(units_, 1));
    return fits_ ? min_of(most, kMaxTableBytes / bytes) : 1;
  }

  A* dbias_;
  int64_t N_, entries_, origin_;
  const int64_t *row_, *column_;
  bool fits_;
  int64_t units_, chunks_;
  Scratch<double> tables_;  // (chunks, N, entries)
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
