#include "common/cpu/isa.h"

#include <cstring>

namespace vdiff {
namespace {

#if defined(__x86_64__)
constexpr const char* kNames[] = {"baseline", "avx2", "avx512"};  // the order of VDIFF_CPU_KERNEL

bool supported(int isa) {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return isa == 0 || (avx2 && (isa == 1 || avx512));
}
#else
constexpr const char* kNames[] = {"baseline"};

bool supported(int) { return true; }
#endif

constexpr int kCount = sizeof(kNames) / sizeof(kNames[0]);

int best() {
  int isa = kCount - 1;
  while (!supported(isa)) --isa;
  return isa;
}

// -1 where there is none of that name, or the processor lacks it.
int find(const char* name) {
  int isa = kCount - 1;
  while (isa >= 0 && (std::strcmp(name, kNames[isa]) != 0 || !supported(isa))) --isa;
  return isa;
}

int in_use = best();

}  // namespace

int isa_in_use() { return in_use; }

}  // namespace vdiff

const char* vdiff_isa() { return vdiff::kNames[vdiff::in_use]; }
int vdiff_has_isa(const char* name) { return vdiff::find(name) >= 0; }

void vdiff_use_isa(const char* name) {
  const int isa = vdiff::find(name);
  if (isa >= 0) vdiff::in_use = isa;
}
