#include "common/isa.h"

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

int in_use = best();

}  // namespace

int isa_in_use() { return in_use; }

}  // namespace vdiff

const char* vdiff_isa() { return vdiff::kNames[vdiff::in_use]; }

int vdiff_use_isa(const char* name) {
  for (int isa = 0; isa < vdiff::kCount; ++isa) {
    if (std::strcmp(name, vdiff::kNames[isa]) != 0 || !vdiff::supported(isa)) continue;
    vdiff::in_use = isa;
    return 1;
  }
  return 0;
}
