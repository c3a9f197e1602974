// The rows of sequences on the CPU: in tensors, and in the scratch that the products work on.
#pragma once

#include "common/cpu/math.h"
#include "common/cpu/scratch.h"
#include "common/cpu/simd.h"

namespace vdiff {
inline namespace VDIFF_ISA {

// Row i, (D,), at data + i * stride. In scratch rows are whole vectors long: what lies past D is readable, and nobody's.
template <class T>
struct Rows {
  T* data;
  int64_t stride;

  T* operator[](int64_t i) const { return data + i * stride; }
  Rows from(int64_t i) const { return {data + i * stride, stride}; }
  Rows columns(int64_t first) const { return {data + first, stride}; }
  operator Rows<const T>() const { return {data, stride}; }
};

// D in whole vectors.
template <class A>
int64_t padded(int64_t D) {
  return ceil_div(D, kLanes<A>) * kLanes<A>;
}

// Whether every value seen was finite, and so far from infinity that sums of 2^24 of them are, too. Magnitudes are compared as
// integers, in whose order infinity and NaN come last.
template <class A>
class Finite {
  using Bits = MaskOf<Vec<A>>;
  using Lane = decltype(Bits{}[0] + 0);
  static constexpr Lane kMagnitude = Lane(~0ull >> (65 - 8 * sizeof(A)));  // all bits but the sign
  static constexpr A kLimit = sizeof(A) == 4 ? A(0x1p103) : A(0x1p999);

 public:
  [[gnu::always_inline]] void see(Vec<A> value) {
    const Bits magnitude = (Bits)value & kMagnitude;
    seen_ = magnitude > seen_ ? magnitude : seen_;
  }
  bool all() const {
    const Vec<A> largest = (Vec<A>)seen_;
    for (int64_t i = 0; i < kLanes<A>; ++i)
      if (!(largest[i] < kLimit)) return false;
    return true;
  }

 private:
  Bits seen_ = {};
};

// to (padded D) = from (D,), widened, zeros past D. What lies `ahead` elements further on is brought into the cache.
template <class T>
[[gnu::always_inline]] inline void load_row(
    const T* from, int64_t D, acc_t<T>* to, Finite<acc_t<T>>& finite, int64_t ahead = 0) {
  constexpr int64_t kCount = kLanes<acc_t<T>>;
  int64_t d = 0;
  for (; d + kCount <= D; d += kCount) {
    if (ahead) __builtin_prefetch(from + ahead + d);
    const Vec<acc_t<T>> value = load_vector(from + d);
    finite.see(value);
    store_vector(to + d, value);
  }
  if (d == D) return;
  if (ahead) __builtin_prefetch(from + ahead + d);
  const Vec<acc_t<T>> value = load_part(from + d, D - d);
  finite.see(value);
  store_vector(to + d, value);
}

template <class T>
[[gnu::always_inline]] inline void store_row(const acc_t<T>* from, int64_t D, T* to) {
  constexpr int64_t kCount = kLanes<acc_t<T>>;
  int64_t d = 0;
  for (; d + kCount <= D; d += kCount) store_vector(to + d, load_vector(from + d));
  if (d < D) store_part(to + d, load_vector(from + d), D - d);
}

// A row of whole lines past the caches.
template <class T>
[[gnu::always_inline]] inline void stream_row(const acc_t<T>* from, int64_t D, T* to) {
  for (int64_t d = 0; d < D; d += kLanes<acc_t<T>>) stream_vector(to + d, load_vector(from + d));
}

template <class A>
bool all_finite(const Rows<const A>& rows, int64_t count, int64_t D) {
  Finite<A> finite;
  for (int64_t i = 0; i < count; ++i)
    for (int64_t d = 0; d < D; d += kLanes<A>) finite.see(load_part(rows[i] + d, min_of(kLanes<A>, D - d)));
  return finite.all();
}

// to (D, lanes) = `count` rows as columns, times scale; zeros from lane `count` on. lanes: whole vectors, the last not empty.
template <class A>
void to_columns(const Rows<const A>& rows, int64_t count, int64_t lanes, int64_t D, A scale, A* to) {
  constexpr int64_t kCount = kLanes<A>;
  for (int64_t lane = 0; lane < lanes; lane += kCount) {
    const int64_t have = min_of(kCount, count - lane);
    for (int64_t d = 0; d < D; d += kCount) {
      Vec<A> block[kCount];
#pragma GCC unroll 16
      for (int64_t r = 0; r < kCount; ++r) block[r] = r < have ? load_vector(rows[lane + r] + d) * scale : Vec<A>{};
      transpose_lanes(block);
      A* column = to + d * lanes + lane;
#pragma GCC unroll 16
      for (int64_t r = 0; r < kCount; ++r)
        if (d + r < D) store_vector(column + r * lanes, block[r]);
    }
  }
}

// --------------------------------------------------------------------------------------------------------- rotary embedding

// (a, b) -> (a cos - b sin, b cos + a sin) of the pairs (2m, 2m + 1) of a row's first R channels.
template <class A>
class Rotation {
 public:
  // angle(i, m) of row i < L and pair m < R / 2.
  template <class Angle>
  Rotation(int64_t L, int64_t R, const Angle& angle) : width_(padded<A>(R)), table_(L * 2 * width_) {
    for (int64_t i = 0; i < L; ++i) {
      A* cosine = table_ + i * 2 * width_;
      A* sine = cosine + width_;
      for (int64_t d = 0; d < width_; ++d) {
        const A value = d < R ? angle(i, d / 2) : A(0);
        cosine[d] = cos_of(value);
        sine[d] = d % 2 ? sin_of(value) : -sin_of(value);
      }
    }
  }

  bool any() const { return width_ > 0; }

  // The sequence's row i, in scratch, in place; direction -1 turns back.
  void turn(int64_t i, A direction, A* row) const {
    const A* cosine = table_.get() + i * 2 * width_;
    for (int64_t d = 0; d < width_; d += kLanes<A>) {
      const Vec<A> value = load_vector(row + d), sine = direction * load_vector(cosine + width_ + d);
      store_vector(row + d, value * load_vector(cosine + d) + swap_pairs(value) * sine);
    }
  }

 private:
  int64_t width_;
  Scratch<A> table_;  // (L, 2, width): cosines, and sines with the sign of their term
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
