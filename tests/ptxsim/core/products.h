// wgmma: matrix products of four warps that run beside them, and what they may not meet until they are waited for.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace ptxsim {

struct Warp;
struct Block;
struct Instruction;
struct Program;

// A register that holds accumulators or A of a wgmma.mma_async.
struct ProductRegister {
  uint16_t accumulating = 0, reading = 0;   // products under way that add to it; that take A from it
  bool touched = true;                      // by another instruction, since the last wgmma.fence
};

struct PendingProduct {              // one that no wait has completed
  const Instruction* instruction;
  uint32_t group, tick;
};

// Of one warp.
struct Products {
  std::vector<ProductRegister> registers;   // by place in the register file, in lanes; empty where the program has no wgmma
  std::vector<PendingProduct> pending;
  uint32_t group = 0;                       // committed groups
  size_t issued = 0;                        // products
  std::vector<std::pair<uint32_t, uint32_t>> waits;   // ticks, rising: of the last product that it completed, of the wait
  // fenced[w]: what warp w wrote to shared memory up to this tick is there for what wgmma reads from now on
  std::vector<uint32_t> fenced;

  // The tick at which the product that was issued at `tick` had been waited for; 0 while it is pending.
  uint32_t waited(uint32_t tick) const {
    const auto wait = std::lower_bound(waits.begin(), waits.end(), std::make_pair(tick, 0u));
    return wait == waits.end() ? 0 : wait->second;
  }
};

// What all warps of a warpgroup must issue alike.
struct IssuedProduct {
  int32_t place;
  uint64_t a, b;                     // descriptors; a is 0 where it comes from registers
  bool adds;
  bool operator==(const IssuedProduct& other) const {
    return place == other.place && a == other.a && b == other.b && adds == other.adds;
  }
};

void mark_product_registers(Program& program);
// An instruction that is no wgmma meets registers of some.
void touch_product_registers(Warp& warp, const Instruction& i);
// fence.proxy.async, by all lanes of the warp.
void fence_products(Warp& warp);
// Once the block has ended: each warp of a group has issued what the others have.
void check_warpgroups(Block& block);

}  // namespace ptxsim
