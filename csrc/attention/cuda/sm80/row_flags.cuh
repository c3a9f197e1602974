// What hides keys from queries, as bits of 32 rows at a time. A warp asks together.
#pragma once

#include "attention/cuda/sequences.h"
#include "common/cuda/team.cuh"

namespace vdiff::attention {

// Bit l: key first + l is there and may be attended. index: the sequence's index[0].
__device__ inline uint32_t seen_keys(const SequenceAttention& p, int64_t index, int first) {
  const int j = first + lane_id();
  return __ballot_sync(~0u, j < p.S && (p.key_mask.data == nullptr || p.key_mask.at(index, j)));
}

// Bit l: frame l is there, sees itself alone, and nobody else sees it.
__device__ inline uint32_t isolated_frames(const SequenceAttention& p, int64_t index) {
  if (p.focus_present.data == nullptr) return 0;
  return __ballot_sync(~0u, lane_id() < p.L && p.focus_present.at(index, lane_id()));
}

}  // namespace vdiff::attention
