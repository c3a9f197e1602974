// Spatial attention of single sequences on the CPU, for kernels that gather the rows of a frame's pixels as they like: the
// operator's own, and layers whose q, k and v are in a task's scratch anyway.
#pragma once

#include "attention/cpu/backward.h"
#include "attention/cpu/forward.h"
#include "attention/params.h"

namespace vdiff {
inline namespace VDIFF_ISA {

// The keys of a sample that its queries see, ascending: all, or those that key_mask leaves. Of the others the kernels never hear.
struct SeenKeys {
  int64_t count;
  const int64_t *keys, *bias_columns;  // (count,); the latter of a dense bias
};

// Those of every sample.
class AllSeenKeys {
 public:
  explicit AllSeenKeys(const SpatialAttentionParams& p)
      : S_(p.KH * p.KW), lists_(p.key_mask ? p.B : 1), counts_(lists_), keys_(lists_ * S_), bias_columns_(lists_ * S_) {
    for (int64_t b = 0; b < lists_; ++b) {
      int64_t count = 0;
      for (int64_t j = 0; j < S_; ++j) {
        if (p.key_mask && !p.key_mask[b * p.stride_mask_b + j * p.stride_mask_s]) continue;
        keys_[b * S_ + count] = j;
        bias_columns_[b * S_ + count++] = j * p.bias.stride_1;
      }
      counts_[b] = count;
    }
  }

  SeenKeys of(int64_t b) const {
    const int64_t list = lists_ == 1 ? 0 : b;
    return {counts_.get()[list], keys_.get() + list * S_, bias_columns_.get() + list * S_};
  }

 private:
  const int64_t S_, lists_;
  Scratch<int64_t> counts_, keys_, bias_columns_;
};

// Tiles of a table of offsets, read in place where a vector's queries lie in one line of the image, else made.
//
// In the table turned round, entry (iy - jy + H - 1, ix - jx + W - 1), neighbouring queries of a line lie side by side.
template <class A>
class OffsetTiles : public BiasSource<A> {
 public:
  // table: turned round, with a vector's lanes readable behind it. scratch: (keys, kMaxBlock), where a tile is made.
  OffsetTiles(const A* table, const int64_t* key, int64_t H, int64_t W, A* scratch)
      : table_(table), key_(key), H_(H), W_(W), scratch_(scratch) {}

  BiasTile<A> block(int64_t query, int64_t lanes, int64_t first_key, int64_t count) const override {
    BiasTile<A> tile{nullptr, key_ + first_key, {}};
    const int64_t L = H_ * W_;
    bool in_place = true;
    for (int64_t v = 0; v * kLanes<A> < lanes; ++v) {
      const int64_t first = min_of(query + v * kLanes<A>, L - 1), last = min_of(first + kLanes<A>, L) - 1;
      in_place = in_place && first / W_ == last / W_;
      tile.base[v] = entry(first);
    }
    if (in_place) return tile;
    for (int64_t l = 0; l < lanes; ++l) {
      const A* from = entry(min_of(query + l, L - 1));
      for (int64_t j = 0; j < count; ++j) scratch_[j * lanes + l] = from[-tile.key[j]];
    }
    tile.made = scratch_;
    return tile;
  }

 private:
  const A* entry(int64_t i) const { return table_ + (i / W_ + H_ - 1) * (2 * W_ - 1) + i % W_ + W_ - 1; }

  const A* table_;
  const int64_t* key_;
  int64_t H_, W_;
  A* scratch_;
};

// The biases of all heads of a call.
template <class A>
class SpatialBias {
 public:
  explicit SpatialBias(const SpatialAttentionParams& p)
      : p_(p),
        L_(p.H * p.W),
        entries_((2 * p.H - 1) * (2 * p.W - 1)),
        row_(L_, p.W, p.W * p.bias.stride_0, p.bias.stride_0),
        key_(p.KH * p.KW, p.KW, 2 * p.W - 1, 1),
        turned_(in_offsets() ? p.N * entries_ + kLanes<A> : 0) {
    if (!in_offsets()) return;
    for (int64_t n = 0; n < p.N; ++n) turn(n, turned_ + n * entries_);
    for (int64_t i = 0; i < kLanes<A>; ++i) turned_[p.N * entries_ + i] = 0;
  }

  bool any() const { return p_.bias.data != nullptr; }
  int64_t scratch_size(int64_t keys) const { return any() ? keys * kMaxBlock<A> : 0; }

  // body(source), the source that of head n and the keys seen; scratch: scratch_size(keys at once).
  template <class Body>
  void with(int64_t n, const SeenKeys& keys, A* scratch, const Body& body) const {
    if (!any()) return body(BiasSource<A>());
    if (in_offsets()) return body(OffsetTiles<A>(turned_.get() + n * entries_, key_.get(), p_.H, p_.W, scratch));
    const int64_t bytes = p_.bias.dtype == DType::Float64 ? 8 : p_.bias.dtype == DType::Float32 ? 4 : 2;
    const void* data = static_cast<const char*>(p_.bias.data) + n * p_.bias.stride_n * bytes;
    body(MadeTiles<A>({data, p_.bias.dtype, row_.get(), keys.bias_columns, false, nullptr, 0, L_}, scratch));
  }

 private:
  bool in_offsets() const { return any() && p_.bias.relative; }

  void turn(int64_t n, A* to) const {
    const AttentionBias& bias = p_.bias;
    dispatch(bias.dtype, [&](auto tag) {
      const auto* table = static_cast<const typename decltype(tag)::type*>(bias.data) + n * bias.stride_n;
      for (int64_t y = 2 * p_.H - 2; y >= 0; --y)
        for (int64_t x = 2 * p_.W - 2; x >= 0; --x) *to++ = A(to_acc(table[y * bias.stride_0 + x * bias.stride_1]));
    });
  }

  const SpatialAttentionParams& p_;
  int64_t L_, entries_;
  TableIndex row_, key_;
  Scratch<A> turned_;  // (N, entries) where the bias is of offsets, and a vector's lanes
};

// Where the bias gradient of a head lies: entry (i, j) at origin + row[i] + column[j].
struct SpatialTable {
  int64_t entries, origin;
  TableIndex row, column;

  explicit SpatialTable(const SpatialAttentionParams& p)
      : entries(p.bias.relative ? (2 * p.H - 1) * (2 * p.W - 1) : p.H * p.W * p.KH * p.KW),
        origin(p.bias.relative ? (p.H - 1) * (2 * p.W - 1) + p.W - 1 : 0),
        row(p.H * p.W, p.W, p.bias.relative ? 1 - 2 * p.W : p.W * p.KH * p.KW, p.bias.relative ? -1 : p.KH * p.KW),
        column(p.KH * p.KW, p.KW, p.bias.relative ? 2 * p.W - 1 : p.KW, 1) {}

  // Of the keys that a sample's queries see; a context's have columns of their own.
  const int64_t* columns(const SpatialAttentionParams& p, const SeenKeys& keys) const {
    return p.key_mask ? keys.keys : column.get();
  }
};

// A task's forward.
template <class A>
class SpatialForward {
 public:
  SpatialForward(const SpatialAttentionParams& p, const SpatialBias<A>& bias, const SeenKeys& keys)
      : bias_(bias),
        keys_(keys),
        sequence_({p.H * p.W, keys.count, p.D, A(p.scale)}),
        scratch_(bias.scratch_size(sequence_.keys_at_once())) {}

  // Queries [begin, end) of head n. Rows in scratch, q's and out's from query `begin` on, of k and v those of the keys seen; out may
  // be q. finite: v's values.
  // lse: query begin + i at lse[i * stride_lse], null: not wanted.
  void attend(
      int64_t n, int64_t begin, int64_t end, const Rows<const A>& q, const Rows<const A>& k, const Rows<const A>& v, bool finite,
      const Rows<A>& out, A* lse, int64_t stride_lse) {
    const int64_t S = keys_.count;
    bias_.with(n, keys_, scratch_, [&](const BiasSource<A>& bias) {
      for (int64_t query = begin; query < end; query += kQueries) {
        const int64_t i = query - begin;
        sequence_.begin(query, min_of(kQueries, end - query), {q[i], q.stride});
        int64_t key = 0;
        do {  // once where no key is seen, for the zeros that the queries get
          const int64_t count = min_of(sequence_.keys_at_once(), S - key);
          sequence_.attend(
              key, count, {k[key], k.stride}, {v[key], v.stride}, finite, bias, {out[i], out.stride},
              lse ? lse + i * stride_lse : nullptr, stride_lse);
          key += count;
        } while (key < S);
      }
    });
  }

 private:
  const SpatialBias<A>& bias_;
  const SeenKeys keys_;
  SequenceForward<A> sequence_;
  Scratch<A> scratch_;
};

// A task's backward.
template <class A>
class SpatialBackward {
 public:
  SpatialBackward(const SpatialAttentionParams& p, const SpatialBias<A>& bias)
      : bias_(bias), sequence_({p.H * p.W, p.KH * p.KW, p.D, A(p.scale)}), scratch_(bias.scratch_size(p.KH * p.KW)) {}

  // SequenceBackward::differentiate of head n and the keys seen.
  void differentiate(
      int64_t n, const SeenKeys& keys, const Rows<const A>& q, const Rows<const A>& k, const Rows<const A>& v,
      const Rows<const A>& g, const FiniteRows& finite, const BiasSums<A>& sums, const Rows<A>& dq, const Rows<A>& dk,
      const Rows<A>& dv, const Rows<A>& out = {nullptr, 0}, bool adds = false) {
    bias_.with(n, keys, scratch_, [&](const BiasSource<A>& bias) {
      sequence_.differentiate(keys.count, q, k, v, g, finite, bias, sums, dq, dk, dv, out, adds);
    });
  }

 private:
  const SpatialBias<A>& bias_;
  SequenceBackward<A> sequence_;
  Scratch<A> scratch_;
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
