// An attention layer backward, from x alone: layer.h, (1) to (3) again, then          contract: params.h, LayerBwdParams
//
//   do   = g w_out,  g = grad_out                       dw_out += g^T o,      db_out += sum_r g        (5)
//   dqkv = attention's backward of do                   dbias                                          (6)
//   dh   = dqkv w_qkv                                   dw_qkv += dqkv^T h,   db_qkv += sum_r dqkv     (7)
//   dx   = norm's backward of dh                        dnorm_*, dpos_emb                              (8)
//
//   batch   as many blocks as have kBatchBytes of h, dqkv, g and o. Its blocks are tasks; then the rows of dw_qkv and dw_out are,
//           each over all rows of the batch: no copy of a weight's gradient for each thread
//   lanes   a batch's blocks are dealt to kSumLanes lanes, each a task with sums in double of all that is summed over rows
//           but the weights; the lanes' sums meet in a fixed order: bit-equal for every number of threads
#pragma once

#include "attention/cpu/layer.h"

namespace vdiff {
inline namespace VDIFF_ISA {

constexpr int64_t kBatchBytes = int64_t(8) << 20;
constexpr int64_t kLeastBlocks = 8;  // of a batch, to occupy the threads
constexpr int64_t kSumLanes = 16;

template <class T, class Sequences, class Attention>
class LayerBackward {
 public:
  using acc = acc_t<T>;

  explicit LayerBackward(const LayerBwdParams<Attention>& p)
      : p_(p),
        C_(p.layer.C),
        Co_(p.layer.Co),
        inner_(p.attention.N * p.attention.D),
        sequences_(p.attention),
        input_(sequences_, p.layer),
        w_out_(panels_of<T>(p.layer.w_out, Co_, inner_)),
        w_qkv_(panels_of<T>(p.layer.w_qkv, 3 * inner_, C_)),
        max_rows_(sequences_.max_rows()),
        blocks_(batch_blocks()),
        h_(blocks_ * max_rows_ * C_),
        dqkv_(blocks_ * max_rows_ * 3 * inner_),
        g_(blocks_ * max_rows_ * Co_),
        o_(blocks_ * max_rows_ * inner_),
        lanes_(min_of(kSumLanes, blocks_)),
        sums_(lanes_ * sums_of_lane()) {}

  void run() {
    sums_.zero(lanes_ * sums_of_lane());
    for (int64_t first = 0; first < sequences_.blocks(); first += blocks_) {
      const int64_t count = min_of(blocks_, sequences_.blocks() - first);
      parallel_for(0, min_of(lanes_, count), max_rows_ * C_ * 6 * inner_, [&](int64_t lane) {
        for (int64_t i = lane; i < count; i += lanes_) differentiate(first + i, i * max_rows_, sums_ + lane * sums_of_lane());
      });
      const int64_t rows = (count - 1) * max_rows_ + sequences_.rows(first + count - 1);
      add_product(dqkv_, 3 * inner_, h_, C_, rows, first == 0, static_cast<acc*>(p_.dw_qkv));  // (7)
      add_product(g_, Co_, o_, inner_, rows, first == 0, static_cast<acc*>(p_.dw_out));        // (5)
    }
    if (sequences_.blocks() == 0) {
      for (int64_t i = 0; i < 3 * inner_ * C_; ++i) static_cast<acc*>(p_.dw_qkv)[i] = 0;
      for (int64_t i = 0; i < Co_ * inner_; ++i) static_cast<acc*>(p_.dw_out)[i] = 0;
    }
    int64_t at = 0;
    const auto write = [&](void* to, int64_t count) {
      for (int64_t i = 0; to && i < count; ++i) {
        double total = 0;
        for (int64_t lane = 0; lane < lanes_; ++lane) total += sums_[lane * sums_of_lane() + at + i];
        static_cast<acc*>(to)[i] = acc(total);
      }
      at += count;
    };
    write(p_.db_qkv, 3 * inner_);
    write(p_.db_out, Co_);
    write(p_.dnorm_weight, C_);
    write(p_.dnorm_bias, C_);
    write(p_.dpos_emb, pos_emb_count());
    write(p_.dbias, bias_count());
  }

 private:
  int64_t batch_blocks() const {
    const int64_t bytes = max_rows_ * (C_ + 4 * inner_ + Co_) * int64_t(sizeof(acc));
    return min_of(sequences_.blocks(), max_of(kLeastBlocks, kBatchBytes / max_of<int64_t>(bytes, 1)));
  }

  int64_t pos_emb_count() const { return p_.dpos_emb ? p_.attention.T * C_ : 0; }
  int64_t bias_count() const { return p_.dbias ? p_.attention.N * sequences_.bias_entries() : 0; }
  int64_t sums_of_lane() const { return 3 * inner_ + Co_ + 2 * C_ + pos_emb_count() + bias_count(); }

  // A block whose rows are those of the batch's scratch from `at` on.
  void differentiate(int64_t block, int64_t at, double* sums) {
    const HeadGroups<acc>& groups = input_.groups;
    const int64_t R = sequences_.rows(block), columns = groups.columns();
    const Rows<acc> h{h_ + at * C_, C_}, dqkv{dqkv_ + at * 3 * inner_, 3 * inner_}, g{g_ + at * Co_, Co_},
        o{o_ + at * inner_, inner_};
    Scratch<acc> qkv_memory(3 * R * columns + kLanes<acc>), do_memory(R * padded_columns<acc>(inner_) + kLanes<acc>),
        dh_memory(R * padded_columns<acc>(C_));
    HeadBackward<acc, Sequences> head(sequences_, R);
    const HeadRows<acc> qkv{
        {qkv_memory, columns}, {qkv_memory + R * columns, columns}, {qkv_memory + 2 * R * columns, columns}};
    const Rows<acc> grad_o{do_memory, padded_columns<acc>(inner_)}, dh{dh_memory, padded_columns<acc>(C_)};

    input_.load(block, h);  // (1)
    for (int64_t r = 0; r < R; ++r) {
      const Place place = sequences_.place(block, r);
      const T* grad_out =
          static_cast<const T*>(p_.grad_out) + p_.stride_grad.at(place.b, place.t, place.h, place.w);
      for (int64_t c = 0; c < Co_; ++c) g[r][c] = to_acc(grad_out[c]);
    }
    multiply(R, Co_, g, w_out_, grad_o);  // (5)

    double* dbias = sums + 3 * inner_ + Co_ + 2 * C_ + pos_emb_count();
    for (int64_t group = 0; group < groups.count(); ++group) {
      input_.project(block, group, h, qkv);  // (2)
      for (int64_t i = 0; i < groups.heads(group); ++i) {
        const int64_t n = groups.first_head(group) + i, first = i * groups.D, column = n * groups.D;
        const HeadRows<acc> rows{qkv.q.columns(first), qkv.k.columns(first), qkv.v.columns(first)};
        const HeadRows<acc> grads{dqkv.columns(column), dqkv.columns(inner_ + column), dqkv.columns(2 * inner_ + column)};
        head.differentiate(  // (3) and (6)
            block, n, rows, grad_o.columns(column), o.columns(column), grads,
            p_.dbias ? dbias + n * sequences_.bias_entries() : nullptr);
      }
    }
    multiply(R, 3 * inner_, dqkv, w_qkv_, dh);  // (7)
    add_rows(R, dqkv, 3 * inner_, sums);
    add_rows(R, g, Co_, sums + 3 * inner_);
    store_dx(block, R, g, dh, sums + 3 * inner_ + Co_);
  }

  void multiply(int64_t R, int64_t K, const Rows<acc>& a, const GemmPanels<acc>& b, const Rows<acc>& to) const {
    gemm<acc>(
        R, unit_depth(K), [&](int64_t r) -> const acc* { return a[r]; }, b,
        [&](int64_t r, int64_t n, Vec<acc> value, int64_t) { store_vector(to[r] + n, value); });
  }

  static void add_rows(int64_t R, const Rows<acc>& rows, int64_t count, double* sums) {
    for (int64_t r = 0; r < R; ++r)
      for (int64_t i = 0; i < count; ++i) sums[i] += double(rows[r][i]);
  }

  // (8); sums: dnorm_weight, dnorm_bias (C,), dpos_emb (T, C).
  void store_dx(int64_t block, int64_t R, const Rows<acc>& g, const Rows<acc>& dh, double* sums) const {
    Scratch<acc> n(C_);
    for (int64_t r = 0; r < R; ++r) {
      const Place place = sequences_.place(block, r);
      acc* d = dh[r];
      for (int64_t c = 0; p_.dpos_emb && c < C_; ++c) sums[2 * C_ + place.t * C_ + c] += double(d[c]);
      const acc rstd = input_.prologue.normalize(input_.x(place), place.b, place.t, n.get());
      if (p_.dnorm_weight) {
        for (int64_t c = 0; c < C_; ++c) sums[c] += double(d[c]) * double(n[c]);
      }
      if (p_.dnorm_bias) {
        for (int64_t c = 0; c < C_; ++c) sums[C_ + c] += double(d[c]);
      }
      input_.prologue.normalize_backward(place.b, rstd, n.get(), d, d);
      T* dx = static_cast<T*>(p_.dx) + sequences_.image_row(place) * C_;
      for (int64_t c = 0; p_.residual_is_x && c < C_; ++c) d[c] += g[r][c];
      for (int64_t c = 0; c < C_; ++c) dx[c] = from_acc<T>(d[c]);
    }
  }

  // to (M, N) = or, unless first, += a^T b, over rows of a (rows, M) and b (rows, N).
  void add_product(const acc* a, int64_t M, const acc* b, int64_t N, int64_t rows, bool first, acc* to) const {
    const PackedPanels<acc> panels(rows, N, 1, [&](int64_t k) { return b + k * N; });
    constexpr int64_t kTaskRows = 4 * kGemmRows;
    parallel_for(0, ceil_div(M, kTaskRows), min_of(kTaskRows, M) * rows * N, [&](int64_t task) {
      const int64_t m_first = task * kTaskRows;
      gemm<acc>(
          min_of(kTaskRows, M - m_first), GemmDepth{1, rows, 0, M}, [&](int64_t m) -> const acc* { return a + m_first + m; },
          panels, [&](int64_t m, int64_t n, Vec<acc> value, int64_t count) {
            acc* at = to + (m_first + m) * N + n;
            store_part(at, first ? value : value + load_part(at, count), count);
          });
    });
  }

  const LayerBwdParams<Attention>& p_;
  const int64_t C_, Co_, inner_;  // inner: N * D
  const Sequences sequences_;
  const LayerInput<T, Sequences> input_;
  const PackedPanels<acc> w_out_;  // (Co, N*D)
  const PackedPanels<acc> w_qkv_;  // (3*N*D, C)
  const int64_t max_rows_;         // of a block; all but the last have as many
  const int64_t blocks_;           // of a batch
  Scratch<acc> h_, dqkv_, g_, o_;  // of a batch
  const int64_t lanes_;
  Scratch<double> sums_;  // (lanes, sums of a lane): db_qkv, db_out, dnorm_weight, dnorm_bias, dpos_emb, dbias
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
