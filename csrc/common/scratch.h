// Uninitialised memory for one task, freed at scope end; 64-byte aligned. No STL: kernel units include this.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

#include "common/isa.h"

namespace vdiff {
inline namespace VDIFF_ISA {

template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) {
    const size_t bytes = (size_t(count) * sizeof(T) + 63) / 64 * 64;
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes ? bytes : 64));
    if (!data_) throw std::bad_alloc();
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* get() { return data_; }
  const T* get() const { return data_; }
  operator T*() { return data_; }

  void zero(int64_t count) {
    for (int64_t i = 0; i < count; ++i) data_[i] = T(0);
  }

 private:
  T* data_;
};

}  // namespace VDIFF_ISA
}  // namespace vdiff
