// The attention of one sequence, forward and backward: what temporal and spatial attention share on the CPU.
//
//   math      s[i,j] = scale * <rot(q_i), rot(k_j)> + bias[i,j]                                             (1)
//             p[i,j] = exp(s[i,j] - max_j s) / sum,  lse_i = max_j s + log(sum)                             (2)
//             out_i  = sum_j p[i,j] v_j                                                                     (3)
//   backward  dv_j += p[i,j] do_i                                                                           (4)
//             dp[i,j] = <do_i, v_j>,  delta_i = sum_j p[i,j] dp[i,j],  ds = p * (dp - delta)                (5)
//             dq_i = scale * rot^-1(sum_j ds[i,j] k_j),  dk_j = scale * rot^-1(sum_i ds[i,j] rot(q_i))      (6)
//   order     one query row after another, keys ascending: a result depends on its sequence alone
//   scratch   k and v, rotated and widened, (S, padded D) acc each; backward as much again for dk and dv, and that once more
//             in double above kBlockRows queries; a handful of rows
//   acc       float, double for double, in blocks of kBlockRows terms where a sum of rows is long; sums of one row's
//             exponentials and delta in double, as they enter all of the row
//   masked    a pair that is masked, or whose bias is -inf, is left out of every sum, whatever its k and v hold; a row
//             without pairs gives zeros and lse -inf
#pragma once

#include "attention/params.h"
#include "common/dispatch.h"
#include "common/math.h"
#include "common/scratch.h"

namespace vdiff {
inline namespace VDIFF_ISA {

// ------------------------------------------------------------------------------------------------------------------ views

// Row i of a sequence: pixel (i / width, i % width), or frame i with width 1.
struct RowIndex {
  int64_t width, stride_outer, stride_inner;

  int64_t at(int64_t i) const { return i / width * stride_outer + i % width * stride_inner; }
};

template <class T>
struct RowView {
  T* data;  // (rows, D), unit stride over D
  RowIndex index;

  T* row(int64_t i) const { return data + index.at(i); }
};

// Entry (i, j) of one head's bias lies at origin + row.at(i) + column.at(j).
struct BiasLayout {
  int64_t origin;
  RowIndex row, column;
};

inline BiasLayout dense_bias_layout(int64_t S, int64_t stride_i, int64_t stride_j) {
  return {0, {1, stride_i, 0}, {S, 0, stride_j}};
}

inline const void* head_bias(const AttentionBias& bias, int64_t n) {
  const int64_t bytes = bias.dtype == DType::Float64 ? 8 : bias.dtype == DType::Float32 ? 4 : 2;
  return static_cast<const char*>(bias.data) + n * bias.stride_n * bytes;
}

// One sequence. acc_t<T> is A below.
template <class T>
struct Sequence {
  RowView<const T> q;     // (L, D)
  RowView<const T> k, v;  // (S, D)
  int64_t S, D;
  acc_t<T> scale;
  const void* bias;  // its head's, null: none
  DType bias_dtype;
  BiasLayout bias_layout;
  bool causal;
  const bool* isolated;  // (L,) focus_present, null: none
  int64_t stride_isolated;
  const acc_t<T>* rotation;  // (L, rotary_pairs, 2) cos, sin, null: none
  int64_t rotary_pairs;
};

// ------------------------------------------------------------------------------------------------------------------- rows

// Rows in scratch are padded with zeros to a multiple of kRowLanes, so that no inner loop has a tail.
constexpr int64_t kRowLanes = 8;

// The terms of one block of a long sum of rows.
constexpr int64_t kBlockRows = 64;

inline int64_t padded(int64_t count) { return ceil_div(count, kRowLanes) * kRowLanes; }

// width: padded.
template <class A>
A dot(const A* __restrict a, const A* __restrict b, int64_t width) {
  A lane[kRowLanes] = {};
  for (int64_t d = 0; d < width; d += kRowLanes)
    for (int64_t l = 0; l < kRowLanes; ++l) lane[l] += a[d + l] * b[d + l];
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

template <class A>
void fill(A* a, int64_t begin, int64_t end, A value) {
  for (int64_t i = begin; i < end; ++i) a[i] = value;
}

// out += weight * x
template <class A>
void add_row(A weight, const A* __restrict x, int64_t width, A* __restrict out) {
  for (int64_t d = 0; d < width; ++d) out[d] += weight * x[d];
}

// out += sum_c weight[c] * x[rows[c]]: four rows to a pass over out, which also shortens the chain of additions.
template <class A>
void add_rows(const A* weight, const int64_t* rows, int64_t count, const A* x, int64_t width, A* __restrict out) {
  int64_t c = 0;
  for (; c + 4 <= count; c += 4) {
    const A* __restrict x0 = x + rows[c] * width;
    const A* __restrict x1 = x + rows[c + 1] * width;
    const A* __restrict x2 = x + rows[c + 2] * width;
    const A* __restrict x3 = x + rows[c + 3] * width;
    const A w0 = weight[c], w1 = weight[c + 1], w2 = weight[c + 2], w3 = weight[c + 3];
    for (int64_t d = 0; d < width; ++d) out[d] += (w0 * x0[d] + w1 * x1[d]) + (w2 * x2[d] + w3 * x3[d]);
  }
  for (; c < count; ++c) add_row(weight[c], x + rows[c] * width, width, out);
}

// out = sum_c weight[c] * x[rows[c]]; block: (width,) scratch.
template <class A>
void weighted_sum(
    const A* weight, const int64_t* rows, int64_t count, const A* x, int64_t width, A* __restrict block, A* __restrict out) {
  fill(out, 0, width, A(0));
  if (count <= kBlockRows) return add_rows(weight, rows, count, x, width, out);
  for (int64_t first = 0; first < count; first += kBlockRows) {
    fill(block, 0, width, A(0));
    add_rows(weight + first, rows + first, min_of(kBlockRows, count - first), x, width, block);
    add_row(A(1), block, width, out);
  }
}

template <class T>
void load_row(const T* x, int64_t D, acc_t<T>* row) {
  for (int64_t d = 0; d < D; ++d) row[d] = to_acc(x[d]);
  fill(row, D, padded(D), acc_t<T>(0));
}

template <class T>
void store_row(const acc_t<T>* row, int64_t D, acc_t<T> factor, T* x) {
  for (int64_t d = 0; d < D; ++d) x[d] = from_acc<T>(row[d] * factor);
}

// (a, b) -> (a cos - b sin, b cos + a sin) of the pairs (2m, 2m+1); direction -1 turns back.
template <class A>
void rotate_row(const A* rotation, int64_t pairs, A direction, A* row) {
  for (int64_t m = 0; m < pairs; ++m) {
    const A cosine = rotation[2 * m], sine = direction * rotation[2 * m + 1];
    const A a = row[2 * m], b = row[2 * m + 1];
    row[2 * m] = a * cosine - b * sine;
    row[2 * m + 1] = b * cosine + a * sine;
  }
}

template <class T>
void rotate_sequence_row(const Sequence<T>& sequence, int64_t i, acc_t<T> direction, acc_t<T>* row) {
  if (!sequence.rotation) return;
  rotate_row(sequence.rotation + i * sequence.rotary_pairs * 2, sequence.rotary_pairs, direction, row);
}

template <class U, class A>
void load_bias_entries(const U* entries, const RowIndex& column, int64_t S, A* row) {
  for (int64_t first = 0; first < S; first += column.width, entries += column.stride_outer)
    for (int64_t x = 0; x < column.width; ++x) row[first + x] = A(to_acc(entries[x * column.stride_inner]));
}

// Row i of the bias, (S,), whatever its dtype.
template <class T>
void load_bias_row(const Sequence<T>& sequence, int64_t i, acc_t<T>* row) {
  const int64_t start = sequence.bias_layout.origin + sequence.bias_layout.row.at(i);
  const RowIndex& column = sequence.bias_layout.column;
  dispatch(sequence.bias_dtype, [&](auto tag) {
    const auto* entries = static_cast<const typename decltype(tag)::type*>(sequence.bias);
    load_bias_entries(entries + start, column, sequence.S, row);
  });
}

// ----------------------------------------------------------------------------------------------------------------- scores

// The keys and values of a sequence, and one row of its scores.
template <class T>
class SequenceScores {
 public:
  using A = acc_t<T>;

  SequenceScores(int64_t S, int64_t D)
      : width(padded(D)), keys(S * width), values(S * width), query(width), block(width), score(S), visible(S), bias_(S) {}

  void load(const Sequence<T>& sequence) {
    for (int64_t j = 0; j < sequence.S; ++j) {
      load_row(sequence.k.row(j), sequence.D, keys + j * width);
      rotate_sequence_row(sequence, j, A(1), keys + j * width);
      load_row(sequence.v.row(j), sequence.D, values + j * width);
    }
  }

  // Row i: query, the keys that it sees in visible[0, count), their scores in score[0, count); returns count.
  int64_t score_row(const Sequence<T>& sequence, int64_t i) {
    load_row(sequence.q.row(i), sequence.D, query.get());
    rotate_sequence_row(sequence, i, A(1), query.get());
    if (sequence.bias) load_bias_row(sequence, i, bias_.get());
    const int64_t end = sequence.causal ? min_of(i + 1, sequence.S) : sequence.S;
    int64_t count = 0;
    for (int64_t j = 0; j < end; ++j) {
      if (is_hidden(sequence, i, j)) continue;
      // (1) s = scale * <q, k> + bias
      A value = sequence.scale * dot<A>(query, keys + j * width, width);
      if (sequence.bias) value += bias_[j];
      visible[count] = j;
      score[count] = value;
      count += value != A(-INFINITY);
    }
    return count;
  }

  const int64_t width;       // D, padded
  Scratch<A> keys, values;   // (S, width)
  Scratch<A> query;          // (width,)
  Scratch<A> block;          // (width,) for weighted_sum
  Scratch<A> score;          // (S,)
  Scratch<int64_t> visible;  // (S,)

 private:
  bool is_hidden(const Sequence<T>& sequence, int64_t i, int64_t j) const {
    if (sequence.bias && bias_.get()[j] == A(-INFINITY)) return true;
    if (!sequence.isolated || i == j) return false;
    return sequence.isolated[i * sequence.stride_isolated] || sequence.isolated[j * sequence.stride_isolated];
  }

  Scratch<A> bias_;  // (S,)
};

// ---------------------------------------------------------------------------------------------------------------- forward

template <class T>
class SequenceForward {
 public:
  using A = acc_t<T>;

  SequenceForward(int64_t S, int64_t D) : scores_(S, D), result_(padded(D)) {}

  void load(const Sequence<T>& sequence) { scores_.load(sequence); }

  // Query rows [begin, end) of the sequence loaded. lse: row i at lse[i * stride_lse], null: not wanted.
  void attend(
      const Sequence<T>& sequence, int64_t begin, int64_t end, const RowView<T>& out, A* lse, int64_t stride_lse) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t count = scores_.score_row(sequence, i);
      A* score = scores_.score;
      // (2) p = exp(s - max), lse = max + log(sum)
      A best = A(-INFINITY);
      for (int64_t c = 0; c < count; ++c) best = score[c] > best ? score[c] : best;
      double total = 0;
      for (int64_t c = 0; c < count; ++c) {
        score[c] = exp_of(score[c] - best);
        total += score[c];
      }
      for (int64_t c = 0; c < count; ++c) score[c] /= A(total);
      if (lse) lse[i * stride_lse] = count ? A(best + log(total)) : A(-INFINITY);
      // (3) out = p v
      weighted_sum<A>(score, scores_.visible, count, scores_.values, scores_.width, scores_.block, result_);
      store_row(result_.get(), sequence.D, A(1), out.row(i));
    }
  }

 private:
  SequenceScores<T> scores_;
  Scratch<A> result_;  // (width,)
};

// --------------------------------------------------------------------------------------------------------------- backward

// Where a task adds the bias gradient of one head: sums in double, or in the result itself where such sums would be large.
template <class A>
struct BiasSums {
  double* wide;  // at most one of the two; none: not wanted
  A* direct;
  BiasLayout layout;
  const int64_t* columns;  // (S,): layout.column.at(j)

  void add(int64_t i, const A* ds, const int64_t* keys, int64_t count) const {
    const int64_t start = layout.origin + layout.row.at(i);
    if (wide)
      for (int64_t c = 0; c < count; ++c) wide[start + columns[keys[c]]] += double(ds[c]);
    if (direct)
      for (int64_t c = 0; c < count; ++c) direct[start + columns[keys[c]]] += ds[c];
  }
};

template <class T>
class SequenceBackward {
 public:
  using A = acc_t<T>;

  // L: the most queries between begin and finish.
  SequenceBackward(int64_t L, int64_t S, int64_t D)
      : scores_(S, D),
        size_(S * scores_.width),
        blocked_(L > kBlockRows),
        grad_keys_(size_),
        grad_values_(size_),
        total_keys_(blocked_ ? size_ : 0),
        total_values_(blocked_ ? size_ : 0),
        grad_(scores_.width),
        grad_query_(scores_.width),
        grad_score_(S) {}

  void begin(const Sequence<T>& sequence) {
    scores_.load(sequence);
    fill(grad_keys_.get(), 0, size_, A(0));
    fill(grad_values_.get(), 0, size_, A(0));
    fill(total_keys_.get(), 0, blocked_ ? size_ : 0, 0.0);
    fill(total_values_.get(), 0, blocked_ ? size_ : 0, 0.0);
    rows_ = 0;
  }

  // All L query rows of the sequence, whose k and v are those given to begin.
  void add_queries(
      const Sequence<T>& sequence, int64_t L, const RowView<const T>& grad_out, const A* lse, int64_t stride_lse,
      const RowView<T>& dq, const BiasSums<A>& dbias) {
    for (int64_t i = 0; i < L; ++i) {
      const A row_lse = lse[i * stride_lse];
      const int64_t count = row_lse == A(-INFINITY) ? 0 : scores_.score_row(sequence, i);
      load_row(grad_out.row(i), sequence.D, grad_.get());
      differentiate_row(count, row_lse);
      dbias.add(i, grad_score_, scores_.visible, count);
      // (6) dq = scale * rot^-1(ds k)
      weighted_sum<A>(grad_score_, scores_.visible, count, scores_.keys, scores_.width, scores_.block, grad_query_);
      rotate_sequence_row(sequence, i, A(-1), grad_query_.get());
      store_row(grad_query_.get(), sequence.D, sequence.scale, dq.row(i));
      if (blocked_ && ++rows_ % kBlockRows == 0) end_block();
    }
  }

  void finish(const Sequence<T>& sequence, const RowView<T>& dk, const RowView<T>& dv) {
    if (blocked_) {
      end_block();
      for (int64_t place = 0; place < size_; ++place) {
        grad_keys_[place] = A(total_keys_[place]);
        grad_values_[place] = A(total_values_[place]);
      }
    }
    for (int64_t j = 0; j < sequence.S; ++j) {
      A* grad_key = grad_keys_ + j * scores_.width;
      rotate_sequence_row(sequence, j, A(-1), grad_key);
      store_row(grad_key, sequence.D, sequence.scale, dk.row(j));
      store_row(grad_values_ + j * scores_.width, sequence.D, A(1), dv.row(j));
    }
  }

 private:
  // (4) and (5) of the row scored last, and its part of dk. Leaves ds in grad_score_.
  void differentiate_row(int64_t count, A row_lse) {
    A* p = scores_.score;
    A* ds = grad_score_;
    const int64_t* visible = scores_.visible;
    const int64_t width = scores_.width;
    double total = 0, delta = 0;
    for (int64_t c = 0; c < count; ++c) {
      p[c] = exp_of(p[c] - row_lse);
      total += p[c];
      ds[c] = dot<A>(grad_, scores_.values + visible[c] * width, width);  // dp
    }
    // Dividing by their sum takes the rounding of the log-sum-exp out of p.
    for (int64_t c = 0; c < count; ++c) {
      p[c] /= A(total);
      delta += double(p[c]) * double(ds[c]);
    }
    for (int64_t c = 0; c < count; ++c) {
      ds[c] = p[c] * (ds[c] - A(delta));
      add_row<A>(p[c], grad_, width, grad_values_ + visible[c] * width);         // dv += p do
      add_row<A>(ds[c], scores_.query, width, grad_keys_ + visible[c] * width);  // dk += ds q
    }
  }

  // Adds the sums of the last kBlockRows queries to those of all.
  void end_block() {
    for (int64_t place = 0; place < size_; ++place) {
      total_keys_[place] += double(grad_keys_[place]);
      total_values_[place] += double(grad_values_[place]);
    }
    fill(grad_keys_.get(), 0, size_, A(0));
    fill(grad_values_.get(), 0, size_, A(0));
  }

  SequenceScores<T> scores_;
  const int64_t size_;                         // S * width
  const bool blocked_;                         // dk and dv are summed over kBlockRows queries, then over all
  Scratch<A> grad_keys_, grad_values_;         // (S, width)
  Scratch<double> total_keys_, total_values_;  // (S, width) where blocked
  Scratch<A> grad_, grad_query_;               // (width,)
  Scratch<A> grad_score_;                      // (S,)
  int64_t rows_ = 0;
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
