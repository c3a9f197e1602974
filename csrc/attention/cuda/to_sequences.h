// Temporal and spatial attention as attention over sequences. Host code.
#pragma once

#include "attention/cuda/sequences.h"
#include "attention/params.h"

namespace vdiff {

// rotary_table: (T, R/2) cosines and sines, filled before the kernel runs; null without rotary.
SequenceAttentionFwd to_sequences(const TemporalAttentionFwdParams& p, const float2* rotary_table);
SequenceAttentionBwd to_sequences(const TemporalAttentionBwdParams& p, const float2* rotary_table);
SequenceAttentionFwd to_sequences(const SpatialAttentionFwdParams& p);
SequenceAttentionBwd to_sequences(const SpatialAttentionBwdParams& p);

}  // namespace vdiff
