// Elements of matrix fragments, for mma and wgmma.
#pragma once
#include "formats.h"
#include "lanes.h"

namespace ptxsim {

enum Input : uint8_t { kInF16, kInBF16, kInTF32 };

template <Input kInput> inline float element_of(const uint8_t* from) {
  if constexpr (kInput == kInTF32) {
    uint32_t bits;
    std::memcpy(&bits, from, 4);
    return bits_as<float>(bits & 0xffffe000u);
  } else {
    uint16_t bits;
    std::memcpy(&bits, from, 2);
    return kInput == kInF16 ? unpack<F16>(bits) : unpack<BF16>(bits);
  }
}
template <Input kInput> inline float element_of(Warp& warp, int32_t reg, int lane, int half) {
  return element_of<kInput>(warp.at<uint8_t>(reg) + 4 * lane + (kInput == kInTF32 ? 0 : 2 * half));
}

inline void inactive_lane(Warp& warp, const Instruction& i, const std::string& what) {
  const std::string where = " in warp " + std::to_string(warp.index) + " of block " + std::to_string(warp.block->index);
  warp.block->machine->findings.add("operation on lanes that are not there", i.place, -1, what + where);
}

}  // namespace ptxsim
