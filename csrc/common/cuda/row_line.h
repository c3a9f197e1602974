// Where rows lie that a kernel goes over, and division by what the host knows. For .cu files. No torch.
#pragma once

#include <cstdint>

namespace vdiff {

// 32-bit division where both fit.
__host__ __device__ inline int64_t divide(int64_t a, int64_t b) {
  return ((a | b) >> 32) == 0 ? uint32_t(a) / uint32_t(b) : a / b;
}

// Divides by a number that the host knows, by a product and a shift (Granlund and Montgomery 1994). A division by any other is 20
// instructions, of 64 bits 100: a kernel that has many of them is read from memory more than it is run.
class Divisor {
 public:
  Divisor() = default;
  explicit Divisor(int64_t value) : value_(int(value > INT32_MAX ? INT32_MAX : value < 1 ? 1 : value)) {
    while ((int64_t(1) << shift_) < value_) ++shift_;
    factor_ = uint32_t((((uint64_t(1) << shift_) - value_) << 32) / value_ + 1);
  }

  // of n from 0 to 2^31 - 1
  __host__ __device__ int quotient(int n) const {
    return int((uint32_t(uint64_t(uint32_t(n)) * factor_ >> 32) + uint32_t(n)) >> shift_);
  }
  __host__ __device__ int64_t quotient(int64_t n) const { return n <= INT32_MAX ? quotient(int(n)) : n / value_; }
  __host__ __device__ int value() const { return value_; }

 private:
  int value_ = 1, shift_ = 0;
  uint32_t factor_ = 1;
};

// Where row i lies: rows come in lines of `length`, at even steps within one and from line to line.
struct RowLine {
  Divisor length;
  int64_t step, line_step;

  RowLine() = default;
  RowLine(int64_t length, int64_t step, int64_t line_step) : length(length), step(step), line_step(line_step) {}

  __host__ __device__ int64_t at(int i) const {
    const int line = length.quotient(i);
    return line * line_step + (i - line * length.value()) * step;
  }
};

// Goes over rows from row `first` on, `step` at a time, without a division at each.
class RowCursor {
 public:
  __device__ RowCursor(const RowLine& line, int first, int step)
      : step_(step), by_(step * line.step), offset(line.at(first)), length_(line.length.value()) {
    at_ = first - line.length.quotient(first) * length_;
    next_line_ = line.line_step - length_ * line.step;
  }

  __device__ void go_on() {
    offset += by_;
    for (at_ += step_; at_ >= length_; at_ -= length_) offset += next_line_;
  }

 private:
  int step_, length_, at_;  // in its line
  int64_t by_, next_line_;

 public:
  int64_t offset;  // of the row
};

}  // namespace vdiff
