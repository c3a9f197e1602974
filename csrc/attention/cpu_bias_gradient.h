// The bias gradient of one call: the score gradients of a head's sequences, summed over all of them.
//
//   chunks    a head's units of work are split into chunks, at most kMaxChunks, by shapes alone; a chunk is one task and
//             has one table of double sums: no table a sequence, and bit-equal for every number of threads
//   scratch   at most kMaxTableBytes; where not even one table a head fits, the sums are made in dbias itself, one chunk a
//             head
//   order     within a chunk that of its units; chunks ascending
#pragma once

#include "attention/cpu_sequence.h"
#include "common/parallel.h"

namespace vdiff {
inline namespace VDIFF_ISA {

constexpr int64_t kMaxChunks = 16;
constexpr int64_t kMaxTableBytes = int64_t(64) << 20;

template <class A>
class BiasGradient {
 public:
  // dbias: (N, entries) acc, null: not wanted, and then chunks are of unwanted_units units. layout: of one head's table.
  BiasGradient(
      void* dbias, int64_t N, int64_t entries, const BiasLayout& layout, int64_t S, int64_t units, int64_t unwanted_units)
      : dbias_(static_cast<A*>(dbias)),
        N_(N),
        entries_(entries),
        layout_(layout),
        fits_(max_of<int64_t>(N, 1) * entries * int64_t(sizeof(double)) <= kMaxTableBytes),
        units_(units),
        chunks_(dbias ? wanted_chunks() : ceil_div(units, unwanted_units)),
        tables_(dbias && fits_ ? N * chunks_ * entries : 0),
        columns_(dbias ? S : 0) {
    for (int64_t j = 0; dbias_ && j < S; ++j) columns_[j] = layout.column.at(j);
  }

  int64_t tasks() const { return N_ * chunks_; }
  int64_t head(int64_t task) const { return task % N_; }
  int64_t first_unit(int64_t task) const { return task / N_ * units_ / chunks_; }
  int64_t last_unit(int64_t task) const { return (task / N_ + 1) * units_ / chunks_; }  // exclusive

  // The task's own sums, zeroed.
  BiasSums<A> start(int64_t task) {
    if (!dbias_) return {nullptr, nullptr, layout_, nullptr};
    if (!fits_) {
      A* table = dbias_ + head(task) * entries_;
      fill(table, 0, entries_, A(0));
      return {nullptr, table, layout_, columns_};
    }
    double* table = tables_ + task * entries_;
    fill(table, 0, entries_, 0.0);
    return {table, nullptr, layout_, columns_};
  }

  // After every task: dbias = the sum of a head's tables.
  void finish() {
    if (!dbias_ || !fits_) return;
    const int64_t block = 1024, blocks = ceil_div(N_ * entries_, block);
    parallel_for(0, blocks, [&](int64_t index) {
      const int64_t end = min_of((index + 1) * block, N_ * entries_);
      for (int64_t entry = index * block; entry < end; ++entry) {
        const int64_t n = entry / entries_, place = entry % entries_;
        double total = 0;
        for (int64_t chunk = 0; chunk < chunks_; ++chunk) total += tables_[(chunk * N_ + n) * entries_ + place];
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
  int64_t N_, entries_;
  BiasLayout layout_;
  bool fits_;
  int64_t units_, chunks_;
  Scratch<double> tables_;     // (chunks, N, entries)
  Scratch<int64_t> columns_;  // (S,)
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
