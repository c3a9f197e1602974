// A kernel as the simulator holds it: decoded instructions over a register file in which every PTX register is 32 lanes wide.
#pragma once
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace ptxsim {

constexpr int kLanes = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

struct Warp;
struct Instruction;

// What the scheduler does after an instruction.
enum class Flow : uint8_t {
  Next,      // go on with the next instruction
  Control,   // the instruction has moved its split: branch, call, return, exit
  Wait,      // the split waits, and runs the instruction again when it is woken
  Skip,      // another split has run it for these lanes
};

// Classes of warp instructions in the counts.
enum class Class : uint8_t { Integer, Float, Half, Double, Convert, Move, Memory, Tensor, Sync, Control, Count };

using Run = Flow (*)(Warp&, const Instruction&, uint32_t mask);

struct Instruction {
  Run run = nullptr;
  int32_t guard = -1;          // register of the predicate, -1 for none
  bool guard_negated = false;
  bool reconverges = false;    // lanes that parted may wait here for each other
  Class kind = Class::Integer;
  uint8_t bytes = 0;           // memory: of one element; elements per lane in `count`
  uint8_t count = 0;
  uint8_t option = 0;          // meaning is the instruction's own
  uint8_t results = 0;             // how many of its operands, the first ones, it writes
  uint8_t product_registers = 0;   // wgmma.mma_async: how many of its operands, the first ones, are accumulators and A
  bool meets_products = false;     // another instruction has such a register as an operand
  int32_t place = 0;           // its index in the program
  int32_t target = -1;         // branches: where to; reconvergence of it in `join`
  int32_t join = -1;
  int64_t immediate = 0;       // memory: offset of the address
  std::vector<int32_t> o;      // operands: offsets in the register file, or, below zero, ~offset in the constants
};

// Registers that hold the same for a whole warp or block, at fixed offsets before all others.
enum Special {
  kTidX, kTidY, kTidZ, kNtidX, kNtidY, kNtidZ, kCtaidX, kCtaidY, kCtaidZ, kNctaidX, kNctaidY, kNctaidZ,
  kLaneid, kWarpid, kNwarpid, kLanemaskEq, kLanemaskLt, kLanemaskLe, kLanemaskGt, kLanemaskGe, kDynamicSmem, kTotalSmem, kSmid,
  kZero, kSink, kSpecials,
};
constexpr int32_t kSlot = kLanes * 8;  // a special register may be read as 64 bits

inline int32_t special_offset(int special) { return special * kSlot; }

struct SharedArray {               // static; the dynamic one begins where the last of them ends
  uint32_t base = 0, bytes = 0;
  std::string name;
};

struct Program {
  std::vector<Instruction> code;
  std::vector<uint8_t> constants;      // immediates, 32 lanes each
  int32_t register_bytes = 0;          // of one warp, with the special ones
  int32_t static_shared = 0, param_bytes = 0, local_bytes = 0;   // local: of one lane
  std::vector<SharedArray> shared_arrays;                        // rising, with gaps between them
  bool has_products = false;           // wgmma
};

}  // namespace ptxsim
