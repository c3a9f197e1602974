// What a kernel is made of beside its arithmetic: calls, divergence, structs, constants, and an order that shows in the result.
struct Pair {
  float a;
  int n;
  double d;
};

__device__ __noinline__ Pair step(Pair p, float by) {
  p.a = p.a * 2 + by;
  p.n += 1;
  p.d += p.a;
  return p;
}

__device__ __noinline__ float chain(float x, int n) {
  Pair p{x, n, 0.5};
  for (int i = 0; i < n; i++) p = step(p, float(i));
  return p.a + p.n + float(p.d);
}

// Some lanes call, with counts of their own; values of all live across the calls.
extern "C" __global__ void calls(const float* x, float* out) {
  const int t = threadIdx.x;
  const float a = x[t], b = a + 1, c = a * 3, d = b - c;
  float r = 0;
  if (t % 3 == 0) r = chain(a, t % 5);
  else if (t % 3 == 1) r = chain(b, t % 7) + chain(c, 2);
  out[t] = r + a + b * c - d;
}

__device__ __noinline__ int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
extern "C" __global__ void recursive(int* out) { out[threadIdx.x] = fibonacci(threadIdx.x); }

// Each lane leaves a nest of loops, a switch and the kernel at a place of its own.
extern "C" __global__ void divergent(const int* x, int* out, int n) {
  const int t = threadIdx.x;
  if (t >= n) return;
  int steps = 0, value = x[t];
  for (int outer = 0; outer < 4; outer++) {
    while (value > 1) {
      value = value % 2 ? 3 * value + 1 : value / 2;
      if (++steps % 11 == 0) break;
    }
    switch ((value + outer) % 5) {
      case 0: steps += 1; break;
      case 1: steps += 10; [[fallthrough]];
      case 2: steps += 100; break;
      case 3: continue;
      default: steps -= 7;
    }
    if (steps > 400) { out[t] = -steps; return; }
  }
  out[t] = steps + __reduce_add_sync(__activemask(), 0);
}

__constant__ float weights[4] = {0.5f, 1.5f, 2.5f, 3.5f};
__device__ int counter = 40;
struct Params {
  const float* x;
  float* out;
  int stride;
  float scale[3];
};
extern "C" __global__ void by_value(Params p, int which) {
  const int t = threadIdx.x;
  p.out[t] = p.x[t * p.stride] * p.scale[which] + weights[t % 4];
  if (t == 0) atomicAdd(&counter, 2);
  if (t == 0) p.out[blockDim.x] = float(counter);
}

// Whichever warp is first to come stays.
extern "C" __global__ void first_come(int* place, int* out) {
  if (threadIdx.x % 32 == 0 && atomicCAS(place, -1, int(threadIdx.x / 32)) == -1) out[0] = threadIdx.x / 32;
}

// How many threads, and which warps, hold: barriers that reduce; and one that only half of the warps use.
extern "C" __global__ void reducing_barriers(const int* x, int* out) {
  const int t = threadIdx.x;
  const int count = __syncthreads_count(x[t] > 0), all = __syncthreads_and(x[t] < 100), any = __syncthreads_or(x[t] == 7);
  __shared__ int row[64];
  if (t < 64) {
    row[t] = x[t];
    asm volatile("bar.sync 3, 64;" ::: "memory");
    out[t] = row[63 - t] + 1000 * count + 100000 * all + 1000000 * any;
  }
}

// The second warp waits for what the first arrives with.
extern "C" __global__ void arrive(const float* x, float* out) {
  __shared__ float row[32];
  const int lane = threadIdx.x % 32;
  if (threadIdx.x < 32) {
    row[lane] = x[lane];
    asm volatile("bar.arrive 2, 64;" ::: "memory");
  } else {
    asm volatile("bar.sync 2, 64;" ::: "memory");
    out[lane] = row[31 - lane];
  }
}

// Neighbouring floats, floats a row apart (a sector each), and a column of a tile in shared memory with and without a pad.
template <int PAD> __global__ void traffic(const float* x, float* out) {
  __shared__ float tile[32][32 + PAD];
  const int t = threadIdx.x;
  for (int r = 0; r < 32; r++) tile[r][t] = x[32 * r + t];
  __syncwarp();
  float sum = x[32 * t];
  for (int c = 0; c < 32; c++) sum += tile[t][c];
  out[t] = sum;
}
template __global__ void traffic<0>(const float*, float*);
template __global__ void traffic<1>(const float*, float*);
