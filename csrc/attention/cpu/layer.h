// A whole attention layer in blocks of rows that stay in the cache: what forward and backward, temporal and spatial share.
//
//   h   = norm(x) + pos_emb                            (1)
//   qkv = h w_qkv^T + b_qkv                            (2)  a group of heads at a time
//   o   = attention(q, k, v)                           (3)
//   out = o w_out^T + b_out + residual                 (4)
//
//   block    the rows of some whole sequences: all frames of a few pixels, or all pixels of a frame
//   scratch  of a block, in acc: h (R, C), q, k and v of one group of heads, o (R, N*D); the weights once a call, packed
//
// Sequences, which the kernels are instantiated with, says how rows form sequences and blocks, and which attention is theirs:
// temporal_layer.cpp, spatial_layer.cpp.
#pragma once

#include "attention/cpu/backward.h"
#include "attention/params.h"
#include "common/cpu/gemm.h"
#include "norm/prologue.h"

namespace vdiff {
inline namespace VDIFF_ISA {

struct Place {
  int64_t b, t, h, w;
};

template <class acc>
int64_t padded_columns(int64_t count) {
  return ceil_div(count, kGemmColumns<acc>) * kGemmColumns<acc>;
}

// q, k, v (or their gradients) of a group of heads in a block, (R, count * D) each.
template <class acc>
struct HeadRows {
  Rows<acc> q, k, v;
};

// A head's rows as attention takes them: where they are, or, where they are no whole vectors long, in a copy.
template <class acc>
class WholeRows {
 public:
  WholeRows(int64_t count, int64_t D)
      : count_(count), D_(D), copies_(D % kLanes<acc> != 0), data_(copies_ ? count * padded<acc>(D) : 0) {}

  Rows<acc> of(const Rows<acc>& rows) { return copies_ ? Rows<acc>{data_, padded<acc>(D_)} : rows; }

  Rows<acc> loaded(const Rows<acc>& rows) {
    Finite<acc> unasked;
    for (int64_t i = 0; copies_ && i < count_; ++i) load_row<acc>(rows[i], D_, of(rows)[i], unasked);
    return of(rows);
  }

  void store(const Rows<acc>& rows) {
    for (int64_t i = 0; copies_ && i < count_; ++i) store_row<acc>(of(rows)[i], D_, rows[i]);
  }

 private:
  int64_t count_, D_;
  bool copies_;
  Scratch<acc> data_;  // (count, padded D)
};

// (3) of one head in a task's blocks of at most R rows.
template <class acc, class Sequences>
class HeadForward {
 public:
  HeadForward(const Sequences& sequences, int64_t R)
      : sequences_(sequences), D_(sequences.params().D), core_(sequences), q_(R, D_), k_(R, D_), v_(R, D_), out_(R, D_) {}

  // Turns rows.q and rows.k where there is rotary embedding.
  void attend(int64_t block, int64_t n, const HeadRows<acc>& rows, const Rows<acc>& to) {
    const int64_t R = sequences_.rows(block), length = sequences_.length();
    const Rows<acc> q = q_.loaded(rows.q), k = k_.loaded(rows.k), v = v_.loaded(rows.v), out = out_.of(to);
    sequences_.turn(R, acc(1), q);
    sequences_.turn(R, acc(1), k);
    const bool finite = all_finite<acc>(v, R, D_);
    for (int64_t r = 0; r < R; r += length)
      core_.attend(sequences_.place(block, r).b, n, q.from(r), k.from(r), v.from(r), finite, out.from(r));
    out_.store(to);
  }

 private:
  const Sequences& sequences_;
  const int64_t D_;
  typename Sequences::Forward core_;
  WholeRows<acc> q_, k_, v_, out_;
};

// The same again, and its backward.
template <class acc, class Sequences>
class HeadBackward {
 public:
  HeadBackward(const Sequences& sequences, int64_t R)
      : sequences_(sequences),
        D_(sequences.params().D),
        core_(sequences),
        q_(R, D_),
        k_(R, D_),
        v_(R, D_),
        g_(R, D_),
        out_(R, D_),
        dq_(R, D_),
        dk_(R, D_),
        dv_(R, D_) {}

  // Turns rows.q and rows.k; dbias: the head's table, to add to; null: not wanted.
  void differentiate(
      int64_t block, int64_t n, const HeadRows<acc>& rows, const Rows<acc>& grad_out, const Rows<acc>& to,
      const HeadRows<acc>& grads, double* dbias) {
    const int64_t R = sequences_.rows(block), length = sequences_.length();
    const Rows<acc> q = q_.loaded(rows.q), k = k_.loaded(rows.k), v = v_.loaded(rows.v), g = g_.loaded(grad_out);
    const Rows<acc> out = out_.of(to), dq = dq_.of(grads.q), dk = dk_.of(grads.k), dv = dv_.of(grads.v);
    sequences_.turn(R, acc(1), q);
    sequences_.turn(R, acc(1), k);
    const auto finite = [&](const Rows<acc>& any) { return !core_.masks() || all_finite<acc>(any, R, D_); };
    const FiniteRows finite_rows{finite(q), finite(k), finite(v), finite(g)};
    const BiasSums<acc> sums = dbias ? sequences_.bias_sums(dbias) : BiasSums<acc>{};
    for (int64_t r = 0; r < R; r += length)
      core_.differentiate(
          sequences_.place(block, r).b, n, q.from(r), k.from(r), v.from(r), g.from(r), finite_rows, sums, dq.from(r), dk.from(r),
          dv.from(r), out.from(r));
    sequences_.turn(R, acc(-1), dq);
    sequences_.turn(R, acc(-1), dk);
    out_.store(to);
    dq_.store(grads.q);
    dk_.store(grads.k);
    dv_.store(grads.v);
  }

  const Sequences& sequences_;
  const int64_t D_;
  typename Sequences::Backward core_;
  WholeRows<acc> q_, k_, v_, g_, out_, dq_, dk_, dv_;
};

// The heads are taken in groups of `size` whose columns are whole panels of the packed weights; the last may be smaller.
template <class acc>
struct HeadGroups {
  int64_t N, D, size;

  HeadGroups(int64_t N, int64_t D) : N(N), D(D), size(1) {
    while (size < N && size * D % kGemmColumns<acc> != 0) ++size;
  }

  int64_t count() const { return ceil_div(N, size); }
  int64_t first_head(int64_t group) const { return group * size; }
  int64_t heads(int64_t group) const { return min_of(size, N - group * size); }
  int64_t columns() const { return padded_columns<acc>(size * D); }  // of each of q, k, v in scratch
  int64_t first_panel(int64_t group) const { return group * size * D / kGemmColumns<acc>; }
  int64_t last_panel(int64_t group) const {
    return ceil_div((first_head(group) + heads(group)) * D, kGemmColumns<acc>);
  }
};

// A vector of `count` acc, zeros where it is absent and up to a whole panel.
template <class acc>
class PaddedVector {
 public:
  PaddedVector(const void* vector, int64_t count) : memory_(padded_columns<acc>(count)) {
    memory_.zero(padded_columns<acc>(count));
    for (int64_t i = 0; vector && i < count; ++i) memory_[i] = static_cast<const acc*>(vector)[i];
  }

  const acc* get() const { return memory_.get(); }

 private:
  Scratch<acc> memory_;
};

// Panels of weight^T: (columns of the weight) x (rows [first, first + count) of the weight).
template <class T>
PackedPanels<acc_t<T>> transposed_panels(const LinearWeight& weight, int64_t first, int64_t count, int64_t columns) {
  const T* data = static_cast<const T*>(weight.data) + first * weight.stride_row;
  return {columns, count, weight.stride_row, [&](int64_t k) { return data + k * weight.stride_column; }};
}

// Panels of the weight itself, (rows, columns).
template <class T>
PackedPanels<acc_t<T>> panels_of(const LinearWeight& weight, int64_t rows, int64_t columns) {
  const T* data = static_cast<const T*>(weight.data);
  return {rows, columns, weight.stride_column, [&](int64_t k) { return data + k * weight.stride_row; }};
}

// (1) and (2), which the backward does again.
template <class T, class Sequences>
class LayerInput {
 public:
  using acc = acc_t<T>;

  LayerInput(const Sequences& sequences, const LayerParams& p)
      : sequences_(sequences),
        p_(p),
        groups(sequences.params().N, sequences.params().D),
        prologue(p.norm, sequences.params().B, sequences.params().T, p.C),
        inner_(sequences.params().N * sequences.params().D),
        w_q_(transposed_panels<T>(p.w_qkv, 0, inner_, p.C)),
        w_k_(transposed_panels<T>(p.w_qkv, inner_, inner_, p.C)),
        w_v_(transposed_panels<T>(p.w_qkv, 2 * inner_, inner_, p.C)),
        b_q_(part(0), inner_),
        b_k_(part(1), inner_),
        b_v_(part(2), inner_) {}

  const T* x(const Place& at) const { return static_cast<const T*>(p_.x) + p_.stride_x.at(at.b, at.t, at.h, at.w); }

  // (1) h (R, C) of a block.
  void load(int64_t block, const Rows<acc>& h) const {
    for (int64_t r = 0; r < sequences_.rows(block); ++r) {
      const Place at = sequences_.place(block, r);
      prologue.apply(x(at), at.b, at.t, h[r]);
      const acc* pos_emb = static_cast<const acc*>(p_.pos_emb) + at.t * p_.C;
      for (int64_t c = 0; p_.pos_emb && c < p_.C; ++c) h[r][c] += pos_emb[c];
    }
  }

  // (2) of one group of heads.
  void project(int64_t block, int64_t group, const Rows<acc>& h, const HeadRows<acc>& to) const {
    project_part(block, group, h, w_q_, b_q_, to.q);
    project_part(block, group, h, w_k_, b_k_, to.k);
    project_part(block, group, h, w_v_, b_v_, to.v);
  }

 private:
  const void* part(int64_t i) const { return p_.b_qkv ? static_cast<const acc*>(p_.b_qkv) + i * inner_ : nullptr; }

  void project_part(
      int64_t block, int64_t group, const Rows<acc>& h, const GemmPanels<acc>& w, const PaddedVector<acc>& bias,
      const Rows<acc>& to) const {
    const int64_t first = groups.first_head(group) * groups.D;
    gemm<acc>(
        sequences_.rows(block), unit_depth(p_.C), [&](int64_t r) -> const acc* { return h[r]; }, w,
        groups.first_panel(group), groups.last_panel(group), [&](int64_t r, int64_t n, Vec<acc> value, int64_t) {
          store_vector(to[r] + n - first, value + load_vector(bias.get() + n));
        });
  }

  const Sequences& sequences_;
  const LayerParams& p_;

 public:
  const HeadGroups<acc> groups;
  const Prologue<acc> prologue;

 private:
  const int64_t inner_;  // N * D
  const PackedPanels<acc> w_q_, w_k_, w_v_;   // (C, N*D)
  const PaddedVector<acc> b_q_, b_k_, b_v_;  // (N*D,)
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
