// Where BUG is 1, lanes that the line PARTED has parted may reach the `.aligned` instruction of the line BUG apart; not where it is 0.
#include <cstdint>

constexpr unsigned ALL = 0xffffffff;

#define LDMATRIX(r, at) asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(at) : "memory")
#define MOVMATRIX(r) asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(r))
#define MMA(d, a, b)                                                                                              \
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};" \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a), "r"(a), "r"(b))

template <int BUG> __global__ void a_branch(const uint32_t* x, uint32_t* out) {
  __shared__ uint32_t rows[32];
  rows[threadIdx.x] = 0;
  if (threadIdx.x % 4 == 1) rows[threadIdx.x] = x[threadIdx.x];  // PARTED
  if (!BUG) __syncwarp();
  uint32_t r;
  LDMATRIX(r, uint32_t(__cvta_generic_to_shared(rows)) + threadIdx.x % 8 * 16);  // BUG
  out[threadIdx.x] = r;
}

template <int BUG> __global__ void a_loop(const float* x, const int* counts, uint32_t a, uint32_t b, float* out) {
  float d[4] = {};
  for (int i = 0; i < counts[threadIdx.x]; i++) d[0] += x[i];  // PARTED
  if (!BUG) __syncthreads();
  MMA(d, a, b);  // BUG
  out[threadIdx.x] = d[0] + d[1] + d[2] + d[3];
}

// What has parted them came in the round before.
template <int BUG> __global__ void the_round_before(uint32_t r, int rounds, uint32_t* out) {
  for (int i = 0; i < rounds; i++) {
    MOVMATRIX(r);  // BUG
    if (r > threadIdx.x) out[i * 32 + threadIdx.x] = r;  // PARTED
    if (!BUG) __syncwarp();
  }
}

// A barrier before the ways meet: the others are at another place.
template <int BUG> __global__ void a_barrier_within(uint32_t r, uint32_t* out) {
  if (BUG ? threadIdx.x % 32 < 16 : threadIdx.x < 64) {  // PARTED
    __syncwarp();
    MOVMATRIX(r);  // BUG
    out[threadIdx.x] = r;
  }
}

template <int BUG> __global__ void those_that_left(uint32_t r, int n, uint32_t* out) {
  if ((BUG ? threadIdx.x : threadIdx.x / 32) > n) return;  // PARTED
  __syncwarp();
  MOVMATRIX(r);  // BUG
  out[threadIdx.x] = r;
}

template <int BUG> __global__ void a_barrier_of_some(uint32_t r, uint32_t* out) {
  if (threadIdx.x % 2 == 0) out[threadIdx.x] = 0;  // PARTED
  __syncwarp(BUG ? 0xffff : ALL);
  MOVMATRIX(r);  // BUG
  out[32 + threadIdx.x] = r;
}

template <int BUG> __global__ void no_barrier(uint32_t r, uint32_t* out) {
  if (threadIdx.x % 2 == 0) out[threadIdx.x] = 0;  // PARTED
  const uint32_t other = __shfl_xor_sync(ALL, r + threadIdx.x, 1);
  if (!BUG) __syncwarp();
  MOVMATRIX(r);  // BUG
  out[32 + threadIdx.x] = r + other;
}

// Where it is 0, the lanes of a warp go the same way: it hangs on the warp, an argument, a vote, or memory of one place.
template <int BUG> __global__ void of_the_warp(uint32_t r, uint32_t* out) {
  const int who = BUG ? threadIdx.x / 16 : threadIdx.x / 32;
  if (who * 5 % 3 == 1) out[threadIdx.x] = 0;  // PARTED
  MOVMATRIX(r);  // BUG
  out[128 + threadIdx.x] = r;
}

template <int BUG> __global__ void of_an_argument(uint32_t r, int n, uint32_t* out) {
  for (int i = BUG ? threadIdx.x : 0; i < n; i++) out[i] = i;  // PARTED
  MOVMATRIX(r);  // BUG
  out[n + threadIdx.x] = r;
}

template <int BUG> __global__ void of_a_vote(uint32_t r, const float* x, uint32_t* out) {
  const bool positive = x[threadIdx.x] > 0;
  if (BUG ? positive : __any_sync(ALL, positive)) out[threadIdx.x] = 0;  // PARTED
  MOVMATRIX(r);  // BUG
  out[32 + threadIdx.x] = r;
}

template <int BUG> __global__ void of_one_place(uint32_t r, const float* x, uint32_t* out) {
  if (x[BUG ? threadIdx.x : blockIdx.x] > 0) out[threadIdx.x] = 0;  // PARTED
  MOVMATRIX(r);  // BUG
  out[32 + threadIdx.x] = r;
}

// A number that is the same for all lanes wherever it is written, but not written by all of them.
template <int BUG> __global__ void written_by_some(uint32_t r, int n, uint32_t* out) {
  int some = n;
  for (int i = 0; i < (BUG ? int(threadIdx.x) : n); i++) out[some += n] = 0;
  __syncwarp();
  if (some > 99) out[0] = 0;  // PARTED
  MOVMATRIX(r);  // BUG
  out[threadIdx.x] = r;
}

#define BOTH(name, ...) template __global__ void name<0>(__VA_ARGS__); template __global__ void name<1>(__VA_ARGS__);
BOTH(a_branch, const uint32_t*, uint32_t*)
BOTH(a_loop, const float*, const int*, uint32_t, uint32_t, float*)
BOTH(the_round_before, uint32_t, int, uint32_t*)
BOTH(a_barrier_within, uint32_t, uint32_t*)
BOTH(those_that_left, uint32_t, int, uint32_t*)
BOTH(a_barrier_of_some, uint32_t, uint32_t*)
BOTH(no_barrier, uint32_t, uint32_t*)
BOTH(of_the_warp, uint32_t, uint32_t*)
BOTH(of_an_argument, uint32_t, int, uint32_t*)
BOTH(of_a_vote, uint32_t, const float*, uint32_t*)
BOTH(of_one_place, uint32_t, const float*, uint32_t*)
BOTH(written_by_some, uint32_t, int, uint32_t*)
