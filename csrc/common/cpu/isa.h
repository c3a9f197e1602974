// One source, several instruction sets: every CPU kernel unit (<family>/cpu/*.cpp) is compiled once for each, with VDIFF_ISA its
// name.
//
// What such a unit can emit lies in `inline namespace VDIFF_ISA`, its headers' functions included, so that the linker cannot take
// an AVX-512 copy of one for baseline code. Types without member functions may stay outside. No torch, no STL.
#pragma once

#ifdef VDIFF_ISA

// Declares a kernel, void name(const Params&): in its own unit that of the unit's instruction set; elsewhere that of each, and
// name itself, which calls the one in use.
#define VDIFF_CPU_KERNEL(name, Params) \
  inline namespace VDIFF_ISA {         \
  void name(const Params& params);     \
  }

#else

#define VDIFF_ISA portable  // any other unit

namespace vdiff {
// The best that this processor has, or what vdiff_use_isa chose.
int isa_in_use();
}  // namespace vdiff

// For ctypes (vdiff_kernels/library.py): the one in use; whether there are kernels for one, and a processor that has
// it; to use such a one, while no kernel runs.
extern "C" __attribute__((visibility("default"))) const char* vdiff_isa();
extern "C" __attribute__((visibility("default"))) int vdiff_has_isa(const char* name);
extern "C" __attribute__((visibility("default"))) void vdiff_use_isa(const char* name);

#if defined(__x86_64__)
#define VDIFF_CPU_KERNEL(name, Params)                                                                    \
  namespace baseline { void name(const Params& params); }                                                 \
  namespace avx2 { void name(const Params& params); }                                                     \
  namespace avx512 { void name(const Params& params); }                                                   \
  inline void name(const Params& params) {                                                                \
    constexpr void (*kernels[])(const Params&) = {baseline::name, avx2::name, avx512::name};              \
    kernels[isa_in_use()](params);                                                                        \
  }
#else
#define VDIFF_CPU_KERNEL(name, Params)                    \
  namespace baseline { void name(const Params& params); } \
  inline void name(const Params& params) { baseline::name(params); }
#endif

#endif
