// An attention layer forward: layer.h, (1) to (4).                          contract: params.h, LayerFwdParams
//
//   task    one block
//   bytes   reads x (and residual) once, writes out once; q, k, v and the scores never leave the cache
//   order   each row by itself, apart from attention's own: bit-equal for every number of threads
#pragma once

#include "attention/cpu/layer.h"

namespace vdiff {
inline namespace VDIFF_ISA {

template <class T, class Sequences, class Attention>
void layer_forward(const LayerFwdParams<Attention>& p) {
  using acc = acc_t<T>;
  const Sequences sequences(p.attention);
  if (sequences.blocks() == 0) return;
  const LayerInput<T, Sequences> input(sequences, p.layer);
  const HeadGroups<acc>& groups = input.groups;
  const int64_t C = p.layer.C, Co = p.layer.Co, inner = groups.N * groups.D;
  const PackedPanels<acc> w_out = transposed_panels<T>(p.layer.w_out, 0, Co, inner);
  const PaddedVector<acc> b_out(p.layer.b_out, Co);

  parallel_for(0, sequences.blocks(), sequences.rows(0) * C * (3 * inner + Co), [&](int64_t block) {
    const int64_t R = sequences.rows(block), columns = groups.columns();
    Scratch<acc> h_memory(R * C), qkv_memory(3 * R * columns + kLanes<acc>), o_memory(R * inner);
    const Rows<acc> h{h_memory, C}, o{o_memory, inner};
    const HeadRows<acc> qkv{
        {qkv_memory, columns}, {qkv_memory + R * columns, columns}, {qkv_memory + 2 * R * columns, columns}};
    HeadForward<acc, Sequences> head(sequences, R);
    input.load(block, h);  // (1)
    for (int64_t group = 0; group < groups.count(); ++group) {
      input.project(block, group, h, qkv);  // (2)
      for (int64_t i = 0; i < groups.heads(group); ++i) {
        const int64_t n = groups.first_head(group) + i, first = i * groups.D;
        const HeadRows<acc> rows{qkv.q.columns(first), qkv.k.columns(first), qkv.v.columns(first)};
        head.attend(block, n, rows, o.columns(n * groups.D));  // (3)
      }
    }
    Scratch<T*> out(R);
    Scratch<const T*> residual(R);
    for (int64_t r = 0; r < R; ++r) {
      const Place at = sequences.place(block, r);
      out[r] = static_cast<T*>(p.out) + sequences.image_row(at) * Co;
      residual[r] = static_cast<const T*>(p.residual) +
                    (p.residual ? p.stride_residual.at(at.b, at.t, at.h, at.w) : 0);
    }
    gemm<acc>(  // (4)
        R, unit_depth(inner), [&](int64_t r) -> const acc* { return o[r]; }, w_out,
        [&](int64_t r, int64_t n, Vec<acc> value, int64_t count) {
          value += load_vector(b_out.get() + n);
          if (p.residual) value += load_part(residual[r] + n, count);
          store_part(out[r] + n, value, count);
        });
  });
}

}  // namespace VDIFF_ISA
}  // namespace vdiff
