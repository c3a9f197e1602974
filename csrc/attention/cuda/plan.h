// How a call of attention runs on a GPU, decided here alone: by which kernels, of which instantiation, cut into which blocks,
// with how much shared memory and scratch, and what backward needs of forward. It follows from sizes, dtype and flags, never from
// the GPU, so that results are the same on every one, and needs none to be asked. No CUDA header, no torch, no STL.
#pragma once

#include "attention/cuda/sm80/blocks.h"
#include "attention/params.h"
#include "common/dispatch.h"

namespace vdiff::attention {

// -------------------------------------------------------------------------------------------------------------------- sizes

// What a plan follows from: independent sequences of L queries and S keys, one at each place and head.
struct Sizes {
  int64_t places[3], N, L, S, D;
  int64_t angles;   // of rotary
  int64_t entries;  // of a head's table of the bias
  bool bias, relative, dbias;
  bool shared_keys;  // the sequences of one places[1] share k and v: dk and dv are their sums
  DType dtype;

  int64_t sequences() const { return places[0] * places[1] * places[2] * N; }
};

inline int64_t bias_entries(const TemporalAttentionParams& p) { return p.bias.relative ? p.T + p.S - 1 : p.T * p.S; }

inline int64_t bias_entries(const SpatialAttentionParams& p) {
  return p.bias.relative ? (2 * p.H - 1) * (2 * p.W - 1) : p.H * p.W * p.KH * p.KW;
}

// Sequences of frames: one at each (B, H, W).
inline Sizes sizes_of(const TemporalAttentionParams& p) {
  const int64_t angles = p.rotary ? p.T * (p.R / 2) : 0;
  const bool bias = p.bias.data != nullptr;
  return {{p.B, p.H, p.W}, p.N, p.T, p.S, p.D, angles, bias_entries(p), bias, p.bias.relative, false, false, p.dtype};
}

// Sequences of the pixels (H, W): one at each (B, T).
inline Sizes sizes_of(const SpatialAttentionParams& p) {
  const int64_t L = p.H * p.W, S = p.KH * p.KW;
  const bool bias = p.bias.data != nullptr;
  return {{p.B, p.T, 1}, p.N, L, S, p.D, 0, bias_entries(p), bias, p.bias.relative, false, p.shared_context, p.dtype};
}

inline Sizes sizes_of(const TemporalAttentionBwdParams& p) {
  Sizes sizes = sizes_of(static_cast<const TemporalAttentionParams&>(p));
  sizes.dbias = p.dbias != nullptr;
  return sizes;
}

inline Sizes sizes_of(const SpatialAttentionBwdParams& p) {
  Sizes sizes = sizes_of(static_cast<const SpatialAttentionParams&>(p));
  sizes.dbias = p.dbias != nullptr;
  return sizes;
}

// ------------------------------------------------------------------------------------------------------- short, or long

enum class Kernels { None, Short, Long };  // None: there is nothing to compute

// The longest sequence that the kernels of short sequences serve: its rows must leave a warp's tiles, in either direction, room
// in shared memory.
inline int64_t longest_short(int64_t D, int64_t element_bytes) {
  constexpr int64_t kTileBytes = 16384;
  const int64_t row_bytes = D * element_bytes;
  return 32 * row_bytes <= kTileBytes ? 32 : 16 * row_bytes <= kTileBytes ? 16 : 0;
}

// The same for backward, which needs neither out nor lse of such: it computes both again, on chip, from q, k and v. Gradients of
// shared keys are sums over sequences, which only the kernels of long ones take.
inline int64_t longest_short_bwd(int64_t D, int64_t element_bytes, bool shared_keys) {
  return shared_keys ? 0 : longest_short(D, element_bytes);
}

inline bool bwd_needs_out_and_lse(int64_t L, int64_t S, int64_t D, int64_t element_bytes, bool shared_keys) {
  return max_of(L, S) > longest_short_bwd(D, element_bytes, shared_keys);
}

inline bool bwd_needs_out_and_lse(const Sizes& s) {
  return bwd_needs_out_and_lse(s.L, s.S, s.D, element_bytes(s.dtype), s.shared_keys);
}

// ------------------------------------------------------------------------------------------------------------------ kernels

// body(IntTag<kRows>{}) with the fewest rows that hold queries and keys of a short sequence. Of what has been chosen, each of
// these chooses the same again.
template <class Body>
void dispatch_rows(int64_t longest, const Body& body) {
  if (longest <= 8) return body(IntTag<8>{});
  if (longest <= 16) return body(IntTag<16>{});
  return body(IntTag<32>{});
}

// body(IntTag<kClass>{}) with the fewest columns of accumulators that hold D.
template <class Body>
void dispatch_class(int64_t D, const Body& body) {
  if (D <= 64) return body(IntTag<64>{});
  if (D <= 128) return body(IntTag<128>{});
  return body(IntTag<256>{});
}

// The same for forward: half types have one for each of the usual head dims.
template <class T, class Body>
void dispatch_fwd_class(int64_t D, const Body& body) {
  if constexpr (sizeof(T) == 2) {
    if (D <= 48) return body(IntTag<48>{});
    if (64 < D && D <= 80) return body(IntTag<80>{});
    if (128 < D && D <= 160) return body(IntTag<160>{});
  }
  dispatch_class(D, body);
}

// The same for dk and dv, where a block may have but a part of the columns, and for the bias' gradient, which accumulates none.
template <class T, class Body>
void dispatch_dkdv_class(int64_t D, const Body& body) {
  if (D <= 64) return body(IntTag<64>{});
  return body(IntTag<kDkdvClass<T>>{});
}
template <class Body>
void dispatch_dbias_class(int64_t D, const Body& body) {
  if (D <= 128) return body(IntTag<128>{});
  return body(IntTag<256>{});
}

// What a kernel of short sequences is told of its cut.
struct ShortPlan {
  int64_t units;   // of `count` neighbouring sequences, a warp's at a time
  int64_t stride;  // from one unit of a warp to its next
  int count;
  int warps;           // of a block
  int64_t warp_bytes;  // of its shared memory
};

// body(IntTag<kRows>{}, IntTag<D>{}) with the same rows and a head dim that a steady kernel has; nothing where it has none.
template <class T, class Body>
void dispatch_steady(int64_t longest, int64_t D, const Body& body) {
  if constexpr (sizeof(T) == 2) {
    dispatch_rows(longest, [&](auto rows) {
      constexpr int kRows = decltype(rows)::value;
      if (D == 32) return body(rows, IntTag<32>{});
      if (D == 64) return body(rows, IntTag<64>{});
      if constexpr (kRows < 32) {
        if (D == 40) return body(rows, IntTag<40>{});
        if (D == 80) return body(rows, IntTag<80>{});
      }
    });
  }
}

// What a steady kernel is told of its cut: a warp has the same heads at places that are `step` apart.
struct SteadyPlan {
  int places, units;  // of all; neighbouring heads at a place, in units
  int step;
  int count;  // heads of a unit
  int warps;  // of a block

  int64_t partials() const { return int64_t(step) * units * count; }  // of the bias' gradient: of each warp and head
};

// What a kernel of long sequences is told of its cut.
struct LongPlan {
  int64_t tiles;   // of rows, of one sequence
  int64_t chunks;  // into which the sequences that add up are cut
  int warps;       // of a block
  int stages;      // tiles of columns in shared memory
};

// A launch: of which instantiation (kRows, or kClass), and the cut that it is told.
template <class Cut>
struct Launch {
  int instance;
  Cut cut;
  LaunchShape shape;
};

struct RotaryPlan {
  LaunchShape table;
  int64_t bytes;  // of the table, at the front of the scratch
};

struct FwdPlan {
  Kernels kernels;
  RotaryPlan rotary;
  Launch<ShortPlan> short_fwd;
  Launch<SteadyPlan> steady_fwd;  // instance 0: none serves these sizes
  Launch<LongPlan> long_fwd;
  int64_t scratch_bytes;
};

struct BwdPlan {
  Kernels kernels;
  RotaryPlan rotary;
  Launch<ShortPlan> short_bwd;
  Launch<SteadyPlan> steady_bwd;  // instance 0: none serves these sizes
  int64_t partials;  // of the bias' gradient: of each sequence of a warp's unit, the entries of a table; 0: not wanted
  LaunchShape short_bias_sum;
  int64_t delta_floats;  // of rowsum(dout * out), at the front of the scratch of long sequences
  Launch<LongPlan> dq, dkdv, dbias;
  LaunchShape merge;  // no blocks: dk and dv are not in chunks
  int64_t tables;     // of the bias' gradient that are added up; 0: not wanted, 1: it is written where it belongs
  LaunchShape bias_sum;
  int64_t scratch_bytes;  // in all
};

// -------------------------------------------------------------------------------------------------------------------- cuts

inline RotaryPlan rotary_plan(const Sizes& s) {
  return {{ceil_div(s.angles, kRotaryThreads), kRotaryThreads, 0}, ceil_div(s.angles * 2 * int64_t(sizeof(float)), 16) * 16};
}

// warp_bytes(count): shared memory of a warp.
template <class T, int kRows, class WarpBytes>
ShortPlan short_plan(const Sizes& s, const WarpBytes& warp_bytes) {
  constexpr int64_t kBlockBytes = 48 << 10;    // of shared memory, unless one warp needs more
  constexpr int kMaxSequences = 4;             // of a unit
  constexpr int64_t kSector = 32;
  constexpr int kFewest = kRows == 8 ? 2 : 1;  // a tile's
  ShortPlan plan{};
  plan.count = kFewest;
  const auto is_whole_sectors = [&] { return plan.count * s.D * int64_t(sizeof(T)) % kSector == 0; };
  while (plan.count < kMaxSequences && !is_whole_sectors() && warp_bytes(2 * plan.count) <= kLargestBlockBytes) plan.count *= 2;
  plan.warp_bytes = warp_bytes(plan.count);
  plan.warps = int(max_of<int64_t>(1, min_of<int64_t>(kMaxWarps, kBlockBytes / plan.warp_bytes)));
  plan.units = ceil_div(s.sequences(), plan.count);
  plan.stride = plan.units;
  return plan;
}

// Units of one warp are `stride` apart, which makes their heads the same, and so far that the warps are no more than it takes.
inline int64_t dbias_stride(const Sizes& s, const ShortPlan& plan) {
  constexpr int64_t kWarpsOfPartials = 4096;  // at most; no GPU that we build for runs as many of these warps at once
  int64_t period = max_of<int64_t>(1, s.N);   // units until heads repeat: N / gcd(N, count), for count is a power of two
  for (int count = plan.count; count > 1 && period % 2 == 0; count /= 2) period /= 2;
  const int64_t periods = ceil_div(plan.units, period);
  return period * max_of<int64_t>(1, min_of(periods, kWarpsOfPartials / period));
}

// As many warps as shared memory lets a block have. bytes(warps, stages): of a block. length: of the rows of one sequence.
template <class Bytes>
LongPlan long_plan(int64_t length, const Bytes& bytes) {
  LongPlan plan{};
  plan.chunks = 1;
  plan.stages = 2;
  for (plan.warps = kLongWarps; plan.warps > 1 && bytes(plan.warps, plan.stages) > kLargestBlockBytes;) plan.warps /= 2;
  if (bytes(plan.warps, plan.stages) > kLargestBlockBytes) plan.stages = 1;
  plan.tiles = ceil_div(length, kWarpRows * plan.warps);
  return plan;
}

// Into how many chunks what adds up is cut, by the shape alone.
inline int64_t chunks_of(int64_t blocks, int64_t members) {
  constexpr int64_t kManyBlocks = 512;  // enough for any GPU: what adds up is cut no further
  return max_of<int64_t>(1, min_of(members, ceil_div(kManyBlocks, max_of<int64_t>(1, blocks))));
}

// stage_bytes: of a warp.
inline Launch<SteadyPlan> steady_launch(const Sizes& s, int rows, int count, int64_t stage_bytes) {
  constexpr int64_t kManyWarps = 2048;      // about as many as a large GPU runs at once
  constexpr int64_t kMostPlaces = 8;        // of a warp: several, so that one's copies are under way while another is computed
  constexpr int64_t kWarpsOfPartials = 4096;  // about as many at most, where there is a bias' gradient
  constexpr int64_t kBlockBytes = 56 << 10;
  if (s.N % count != 0 || s.sequences() > int64_t(1) << 30) return {};
  SteadyPlan cut{};
  cut.places = int(s.sequences() / s.N);
  cut.units = int(s.N / count);
  cut.count = count;
  cut.warps = int(max_of<int64_t>(1, min_of<int64_t>(kMaxWarps, kBlockBytes / (2 * stage_bytes))));
  const int64_t all = int64_t(cut.places) * cut.units;
  int64_t of_warp = max_of<int64_t>(1, min_of<int64_t>(kMostPlaces, all / kManyWarps));
  if (s.dbias) of_warp = max_of(of_warp, ceil_div(all, kWarpsOfPartials));
  cut.step = int(ceil_div(cut.places, of_warp));
  const int64_t blocks = ceil_div(int64_t(cut.step) * cut.units, cut.warps);
  return {rows, cut, {blocks, cut.warps * kWarp, cut.warps * 2 * stage_bytes}};
}

// ------------------------------------------------------------------------------------------------------------------ forward

template <class T>
void plan_short_fwd(const Sizes& s, FwdPlan& plan) {
  dispatch_rows(max_of(s.L, s.S), [&](auto rows) {
    constexpr int kRows = decltype(rows)::value;
    const auto warp_bytes = [&](int count) { return bytes_of<ShortFwdMemory<T, kRows>>(count, s.D); };
    const ShortPlan cut = short_plan<T, kRows>(s, warp_bytes);
    plan.short_fwd = {kRows, cut, {ceil_div(cut.units, cut.warps), cut.warps * kWarp, cut.warps * cut.warp_bytes}};
  });
}

// Where strides allow it, too, it is taken instead.
template <class T>
void plan_steady_fwd(const Sizes& s, FwdPlan& plan) {
  dispatch_steady<T>(max_of(s.L, s.S), s.D, [&](auto rows, auto columns) {
    constexpr int kRows = decltype(rows)::value, kD = decltype(columns)::value, kCount = kSteadyCount<kRows, kD>;
    plan.steady_fwd = steady_launch(s, kRows, kCount, bytes_of<ShortFwdMemory<T, kRows>>(kCount, kD));
  });
}

template <class T>
void plan_long_fwd(const Sizes& s, FwdPlan& plan) {
  dispatch_fwd_class<T>(s.D, [&](auto tag) {
    constexpr int kClass = decltype(tag)::value;
    using Memory = LongFwdMemory<T, kClass>;
    const auto bytes = [&](int warps, int) { return bytes_of<Memory>(warps, s.D, s.bias); };
    const LongPlan cut = long_plan(s.L, bytes);
    plan.long_fwd = {kClass, cut, {s.sequences() * cut.tiles, cut.warps * kWarp, bytes(cut.warps, cut.stages)}};
  });
}

inline FwdPlan fwd_plan(const Sizes& s) {
  FwdPlan plan{};
  plan.rotary = rotary_plan(s);
  plan.scratch_bytes = plan.rotary.bytes;
  if (s.sequences() * s.L * s.S == 0) return plan;
  const bool is_short = max_of(s.L, s.S) <= longest_short(s.D, element_bytes(s.dtype));
  plan.kernels = is_short ? Kernels::Short : Kernels::Long;
  dispatch_served(s.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    is_short ? plan_short_fwd<T>(s, plan) : plan_long_fwd<T>(s, plan);
    if (is_short) plan_steady_fwd<T>(s, plan);
  });
  return plan;
}

// ----------------------------------------------------------------------------------------------------------------- backward

template <class T>
void plan_short_bwd(const Sizes& s, BwdPlan& plan) {
  dispatch_rows(max_of(s.L, s.S), [&](auto rows) {
    constexpr int kRows = decltype(rows)::value;
    const auto warp_bytes = [&](int count) { return bytes_of<ShortBwdMemory<T, kRows>>(count, s.D, s.dbias); };
    ShortPlan cut = short_plan<T, kRows>(s, warp_bytes);
    if (s.dbias) cut.stride = dbias_stride(s, cut);
    plan.short_bwd = {kRows, cut, {ceil_div(cut.stride, cut.warps), cut.warps * kWarp, cut.warps * cut.warp_bytes}};
  });
  if (!s.shared_keys) {
    dispatch_steady<T>(max_of(s.L, s.S), s.D, [&](auto rows, auto columns) {
      constexpr int kRows = decltype(rows)::value, kD = decltype(columns)::value, kCount = kSteadyCount<kRows, kD>;
      plan.steady_bwd = steady_launch(s, kRows, kCount, bytes_of<ShortBwdMemory<T, kRows>>(kCount, kD, false));
    });
  }
  if (!s.dbias) return;
  plan.partials = max_of(plan.short_bwd.cut.stride * plan.short_bwd.cut.count, plan.steady_bwd.cut.partials());
  plan.short_bias_sum = {ceil_div(s.N * s.entries, kWarp), kSlices * kWarp, 0};
  plan.scratch_bytes += plan.partials * s.entries * int64_t(sizeof(float));
}

// In the scratch: delta, then what dk and dv are merged of, and, in the same place after that, the tables of the bias gradient.
template <class T>
void plan_long_bwd(const Sizes& s, BwdPlan& plan) {
  dispatch_class(s.D, [&](auto tag) {
    constexpr int kClass = decltype(tag)::value;
    using Memory = LongDqMemory<T, kClass>;
    const auto bytes = [&](int warps, int) { return bytes_of<Memory>(warps, s.D, s.bias); };
    const LongPlan cut = long_plan(s.L, bytes);
    plan.dq = {kClass, cut, {s.sequences() * cut.tiles, cut.warps * kWarp, bytes(cut.warps, cut.stages)}};
  });

  const int64_t groups = s.shared_keys ? s.places[0] * s.N : s.sequences(), members = s.shared_keys ? s.places[1] : 1;
  dispatch_dkdv_class<T>(s.D, [&](auto tag) {
    constexpr int kClass = decltype(tag)::value;
    const auto bytes = [&](int warps, int stages) { return bytes_of<LongDkdvMemory<T>>(warps, stages, s.D, s.bias); };
    LongPlan cut = long_plan(s.S, bytes);
    const int64_t blocks = groups * cut.tiles * ceil_div(s.D, kClass);
    cut.chunks = chunks_of(blocks, members);
    plan.dkdv = {kClass, cut, {blocks * cut.chunks, cut.warps * kWarp, bytes(cut.warps, cut.stages)}};
  });

  plan.delta_floats = ceil_div(s.sequences() * s.L, 4) * 4;
  int64_t floats = 0;
  if (plan.dkdv.cut.chunks > 1) {
    floats = 2 * plan.dkdv.cut.chunks * groups * s.S * s.D;
    plan.merge = {ceil_div(2 * groups * s.S * s.D, kMergeThreads), kMergeThreads, 0};
  }
  if (s.dbias) {
    dispatch_dbias_class(s.D, [&](auto tag) {
      constexpr int kClass = decltype(tag)::value;
      using Memory = LongBiasMemory<T, kClass>;
      const auto bytes = [&](int warps, int) { return bytes_of<Memory>(warps, s.D); };
      LongPlan cut = long_plan(s.L, bytes);
      cut.chunks = chunks_of(s.N * cut.tiles, s.places[0] * s.places[1] * s.places[2]);
      plan.dbias = {kClass, cut, {s.N * cut.tiles * cut.chunks, cut.warps * kWarp, bytes(cut.warps, cut.stages)}};
    });
    plan.tables = s.relative ? plan.dbias.cut.chunks * plan.dbias.cut.tiles : plan.dbias.cut.chunks;
    if (plan.tables > 1) {
      floats = max_of(floats, plan.tables * s.N * s.entries);
      plan.bias_sum = {ceil_div(s.N * s.entries, kReduceThreads), kReduceThreads, 0};
    }
  }
  plan.scratch_bytes += (plan.delta_floats + floats) * int64_t(sizeof(float));
}

inline BwdPlan bwd_plan(const Sizes& s) {
  BwdPlan plan{};
  plan.rotary = rotary_plan(s);
  plan.scratch_bytes = plan.rotary.bytes;
  if (s.L * s.S == 0) return plan;
  const bool is_short = !bwd_needs_out_and_lse(s);
  plan.kernels = is_short ? Kernels::Short : Kernels::Long;
  dispatch_served(s.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    is_short ? plan_short_bwd<T>(s, plan) : plan_long_bwd<T>(s, plan);
  });
  return plan;
}

}  // namespace vdiff::attention
