// What Python asks of attention by ctypes (vdiff_kernels/library.py), of a build without CUDA too.
#include "attention/cuda/plan.h"

#define VDIFF_EXPORT extern "C" __attribute__((visibility("default")))

// Whether the backward of L queries and S keys on a GPU needs of forward out and lse, and up to which of both it needs neither.
VDIFF_EXPORT int vdiff_attention_backward_needs(int64_t L, int64_t S, int64_t D, int64_t element_bytes, int shared_keys) {
  return vdiff::attention::bwd_needs_out_and_lse(L, S, D, element_bytes, shared_keys != 0);
}
VDIFF_EXPORT int64_t vdiff_attention_longest_short_bwd(int64_t D, int64_t element_bytes, int shared_keys) {
  return vdiff::attention::longest_short_bwd(D, element_bytes, shared_keys != 0);
}
