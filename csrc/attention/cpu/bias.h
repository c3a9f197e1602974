// What is added to the scores of a sequence on the CPU: its head's bias, and -inf where a pair is masked.
//
//   layout   scores of kLanes queries lie in a vector, keys below one another; so do these
//   source   block(query, lanes, key, count) gives what add(score, j, v) adds to vector v of the block's queries at its key j
//   masked   -inf here makes a score -inf, whatever it was
#pragma once

#include "attention/cpu/products.h"
#include "attention/params.h"
#include "common/cpu/math.h"
#include "common/cpu/scratch.h"
#include "common/cpu/simd.h"
#include "common/dispatch.h"

namespace vdiff {
inline namespace VDIFF_ISA {

template <class A>
[[gnu::always_inline]] inline Vec<A> add_bias(Vec<A> score, Vec<A> bias) {
  const Vec<A> masked = splat(A(-INFINITY));
  return bias == masked ? masked : score + bias;
}

// Of a block of queries and some keys: at most one of a tile that was made for it and a table that is read in place.
template <class A>
struct BiasTile {
  const A* made;                   // (keys, vectors of queries)
  const int64_t* key;              // with a table: how far a key's entries lie before those of
  const A* base[kMaxTileVectors];  // each vector's first query

  template <int64_t kVectors>
  [[gnu::always_inline]] Vec<A> add(Vec<A> score, int64_t j, int64_t v) const {
    if (made) return add_bias<A>(score, load_vector(made + (j * kVectors + v) * kLanes<A>));
    if (key) return add_bias<A>(score, load_vector(base[v] - key[j]));
    return score;
  }
};

// One class for all kinds of bias, as each would make a copy of the kernels. This one: nothing to add.
template <class A>
class BiasSource {
 public:
  // Of the queries [query, query + lanes) and the keys [key, key + count).
  virtual BiasTile<A> block(int64_t, int64_t, int64_t, int64_t) const { return {}; }
};

// Where the entries of a table lie: those of i, which come in lines of `width`, at line * stride_line + x * stride.
class TableIndex {
 public:
  TableIndex(int64_t count, int64_t width, int64_t stride_line, int64_t stride) : at_(count) {
    for (int64_t first = 0, line = 0; first < count; first += width, ++line)
      for (int64_t x = 0; x < min_of(width, count - first); ++x) at_[first + x] = line * stride_line + x * stride;
  }

  const int64_t* get() const { return at_.get(); }

 private:
  Scratch<int64_t> at_;  // (count,)
};

// One head's bias and the masks: entry (i, j) lies at bias + row[i] + column[j].
template <class A>
struct BiasView {
  const void* bias;  // null: none
  DType dtype;
  const int64_t *row, *column;
  bool causal;
  const bool* isolated;  // (L,) focus_present, null: none
  int64_t stride_isolated;
  int64_t L;

  bool any() const { return bias || causal || isolated; }

  // to (count, lanes) = the entries of keys [key, key + count) and queries [query, query + lanes), zeros from query L on.
  void fill(int64_t query, int64_t lanes, int64_t key, int64_t count, A* to) const {
    const int64_t queries = min_of(lanes, L - query);
    if (bias) {
      dispatch(dtype, [&](auto tag) {
        const auto* entries = static_cast<const typename decltype(tag)::type*>(bias);
        for (int64_t j = 0; j < count; ++j) {
          const auto* at = entries + column[key + j];
          for (int64_t l = 0; l < queries; ++l) to[j * lanes + l] = A(to_acc(at[row[query + l]]));
          for (int64_t l = queries; l < lanes; ++l) to[j * lanes + l] = 0;
        }
      });
    } else {
      for (int64_t place = 0; place < count * lanes; ++place) to[place] = 0;
    }
    for (int64_t j = key; causal && j < key + count; ++j)
      for (int64_t l = 0; l < min_of(queries, j - query); ++l) to[(j - key) * lanes + l] = A(-INFINITY);
    for (int64_t j = key; isolated && j < key + count; ++j)
      for (int64_t l = 0; l < queries; ++l) {
        const bool hidden = isolated[j * stride_isolated] || isolated[(query + l) * stride_isolated];
        if (hidden && j != query + l) to[(j - key) * lanes + l] = A(-INFINITY);
      }
  }
};

// Tiles made where they are needed.
template <class A>
class MadeTiles : public BiasSource<A> {
 public:
  MadeTiles(const BiasView<A>& view, A* scratch) : view_(view), scratch_(scratch) {}

  BiasTile<A> block(int64_t query, int64_t lanes, int64_t key, int64_t count) const override {
    view_.fill(query, lanes, key, count, scratch_);
    return {scratch_, nullptr, {}};
  }

 private:
  BiasView<A> view_;
  A* scratch_;  // (count, lanes)
};

// Tiles of all S keys, made before: those of the queries [query, query + lanes) at tiles + query * S.
template <class A>
class StoredTiles : public BiasSource<A> {
 public:
  StoredTiles(const A* tiles, int64_t S) : tiles_(tiles), S_(S) {}

  BiasTile<A> block(int64_t query, int64_t lanes, int64_t key, int64_t) const override {
    return {tiles_ + query * S_ + key * lanes, nullptr, {}};
  }

 private:
  const A* tiles_;
  int64_t S_;
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
