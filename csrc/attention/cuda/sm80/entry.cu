#include "attention/cuda/sm80/entry.h"

#include "attention/cuda/sm80/long_launch.h"
#include "attention/cuda/sm80/rotary_table.cuh"
#include "attention/cuda/sm80/short_launch.h"
#include "attention/cuda/to_sequences.h"
#include "common/cuda/kernel_launch.cuh"
#include "common/dispatch.h"

namespace vdiff {

using namespace attention;

bool is_short_attention(int64_t L, int64_t S, int64_t D, DType dtype) {
  const int64_t longest = max_of(L, S), rows = longest <= 16 ? 16 : 32;
  return longest <= kMaxShort && rows * D * (dtype == DType::Float32 ? 4 : 2) <= kMaxShortTileBytes;
}

namespace {

// body(TypeTag<T>{}) for the dtypes that have kernels; the operator lets no other through.
template <class Body>
void dispatch_served(DType dtype, const Body& body) {
  if (dtype == DType::Float32) return body(TypeTag<float>{});
  if (dtype == DType::Float16) return body(TypeTag<Half>{});
  if (dtype == DType::BFloat16) return body(TypeTag<BFloat16>{});
}

int64_t rotary_bytes(const TemporalAttentionParams& p) { return p.rotary ? ceil_div(p.T * (p.R / 2) * 8, 16) * 16 : 0; }

// The table of cosines and sines, at the front of the scratch.
const float2* launch_rotary_table(const TemporalAttentionParams& p, void* scratch, cudaStream_t stream) {
  if (p.rotary == nullptr) return nullptr;
  auto* const table = static_cast<float2*>(scratch);
  const int64_t pairs = p.R / 2;
  launch("rotary_table_kernel", rotary_table_kernel<>, ceil_div(p.T * pairs, kRotaryThreads), kRotaryThreads, 0, stream,
         static_cast<const float*>(p.rotary), table, p.T, pairs, p.stride_rotary_t, p.stride_rotary_r);
  return table;
}

void launch_fwd(const SequenceAttentionFwd& s, DType dtype, cudaStream_t stream) {
  if (s.sequences() * s.L * s.S == 0) return;
  dispatch_served(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    is_short_attention(s.L, s.S, s.D, dtype) ? launch_short_fwd<T>(s, stream) : launch_long_fwd<T>(s, stream);
  });
}

// The short kernels write dk and dv of each sequence by itself.
bool has_short_bwd(const SequenceAttentionBwd& s, DType dtype) {
  return is_short_attention(s.L, s.S, s.D, dtype) && !s.shared_keys;
}

int64_t bwd_scratch(const SequenceAttentionBwd& s, DType dtype) {
  int64_t bytes = 0;
  dispatch_served(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    bytes = has_short_bwd(s, dtype) ? short_bwd_scratch<T>(s) : long_bwd_scratch<T>(s);
  });
  return bytes;
}

void launch_bwd(const SequenceAttentionBwd& s, DType dtype, void* scratch, cudaStream_t stream) {
  if (s.L * s.S == 0) return;
  dispatch_served(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    has_short_bwd(s, dtype) ? launch_short_bwd<T>(s, scratch, stream) : launch_long_bwd<T>(s, scratch, stream);
  });
}

}  // namespace

int64_t temporal_attention_fwd_scratch(const TemporalAttentionFwdParams& p) { return rotary_bytes(p); }

int64_t temporal_attention_bwd_scratch(const TemporalAttentionBwdParams& p) {
  return rotary_bytes(p) + bwd_scratch(to_sequences(p, nullptr), p.dtype);
}

int64_t spatial_attention_fwd_scratch(const SpatialAttentionFwdParams&) { return 0; }

int64_t spatial_attention_bwd_scratch(const SpatialAttentionBwdParams& p) { return bwd_scratch(to_sequences(p), p.dtype); }

void launch_temporal_attention_fwd(const TemporalAttentionFwdParams& p, void* scratch, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  launch_fwd(to_sequences(p, launch_rotary_table(p, scratch, cuda_stream)), p.dtype, cuda_stream);
}

void launch_temporal_attention_bwd(const TemporalAttentionBwdParams& p, void* scratch, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const float2* table = launch_rotary_table(p, scratch, cuda_stream);
  launch_bwd(to_sequences(p, table), p.dtype, static_cast<char*>(scratch) + rotary_bytes(p), cuda_stream);
}

void launch_spatial_attention_fwd(const SpatialAttentionFwdParams& p, void*, void* stream) {
  launch_fwd(to_sequences(p), p.dtype, static_cast<cudaStream_t>(stream));
}

void launch_spatial_attention_bwd(const SpatialAttentionBwdParams& p, void* scratch, void* stream) {
  launch_bwd(to_sequences(p), p.dtype, scratch, static_cast<cudaStream_t>(stream));
}

}  // namespace vdiff
