// Uninitialised memory for one task, freed at scope end; 64-byte aligned. No STL: kernel units include this.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

#include "common/cpu/isa.h"

namespace vdiff {
inline namespace VDIFF_ISA {

template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) {
    // Not aligned_alloc: before glibc 2.38 it does not take again what it gave back, and memory grows from call to call.
    memory_ = std::malloc(size_t(count) * sizeof(T) + kAlignment);
    if (!memory_) throw std::bad_alloc();
    data_ = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory_) / kAlignment + 1) * kAlignment);
  }
  ~Scratch() { std::free(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* get() { return data_; }
  const T* get() const { return data_; }
  operator T*() { return data_; }

  void zero(int64_t count) {
    for (int64_t i = 0; i < count; ++i) data_[i] = T(0);
  }

 private:
  static constexpr size_t kAlignment = 64;

  void* memory_;
  T* data_;
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
