// wgmma: matrix products of a warpgroup, four warps that follow each other, from shared memory.
//
// A warp computes its own 16 rows as soon as it issues the product, whose result hangs on nothing that may change before its
// wait: what may not change until then is pending, and whoever meets it is a finding.
#include "fragments.h"

namespace ptxsim {
namespace {

constexpr int kRows = 64, kWarps = 4;
enum : uint8_t { kTransposeA = 1, kTransposeB = 2, kNegateA = 4, kNegateB = 8, kFromRegisters = 16 };

std::string warp_name(const Warp& warp) {
  return "warp " + std::to_string(warp.index) + " of block " + std::to_string(warp.block->index);
}
void add_finding(Warp& warp, const Instruction& i, const char* kind, int32_t other, const std::string& detail) {
  warp.block->machine->findings.add(kind, i.place, other, detail);
}

constexpr const char* kNotTogether = "wgmma by a part of its warpgroup";

// Whether the warp is whole here; where it is not, `flow` says what it does instead.
bool is_whole(Warp& warp, const Instruction& i, uint32_t mask, Flow& flow) {
  const uint32_t lanes = gather(warp, mask, warp.all, i.place, flow);
  if (lanes != 0 && lanes != kAllLanes) inactive_lane(warp, i, "wgmma by lanes 0x" + hex(lanes));
  return lanes != 0;
}

// ---- matrices in shared memory: PTX ISA, "Matrix Descriptor" and "Strides"

struct Descriptor {
  uint32_t start, leading, stride, base;
  uint32_t width;      // of a row of the swizzled pattern, in units of 16 bytes; 1: no swizzle
  explicit Descriptor(uint64_t bits)
      : start((bits & 0x3fff) << 4), leading((bits >> 16 & 0x3fff) << 4), stride((bits >> 32 & 0x3fff) << 4),
        base(uint32_t(bits >> 49 & 7)), width(bits >> 62 == 0 ? 1 : 16u >> (bits >> 62)) {}

  // Of the 16 bytes whose first element is (along, across): along the dimension that is contiguous, in units of 16 bytes. In the
  // canonical layouts 8 rows of 16 bytes are a core matrix, `width` of which lie side by side.
  uint32_t address(uint32_t along, uint32_t across, bool transposed) const {
    uint32_t at = start + across % 8 * width * 16;
    if (!transposed) at += across / 8 * stride + along * (width == 1 ? leading : 16);
    else if (width == 1) at += along * stride + across / 8 * leading;
    else at += along % width * 16 + along / width * leading + across / 8 * stride;
    return at ^ ((at >> 7 & (width - 1)) << 4);
  }
};

// The matrix as [k][outer], an element's row or column being the outer one.
template <Input kInput>
void read_matrix(Warp& warp, const Instruction& i, uint64_t bits, int outer, bool transposed, float sign, float* to) {
  constexpr int kBytes = kInput == kInTF32 ? 4 : 2, kUnit = 16 / kBytes;
  const Descriptor descriptor(bits);
  const std::vector<uint8_t>& shared = warp.block->machine->shared;
  if (descriptor.base != 0)
    add_finding(warp, i, "wgmma descriptor with a base offset", -1,
                std::to_string(descriptor.base) + ", which is not simulated, in " + warp_name(warp));
  const int k = i.bytes;
  for (int along = 0; along < (transposed ? outer : k) / kUnit; along++)
    for (int across = 0; across < (transposed ? k : outer); across++) {
      const uint32_t at = descriptor.address(uint32_t(along), uint32_t(across), transposed);
      const bool is_there = check_shared_product(warp, i, at);
      for (int e = 0; e < kUnit; e++) {
        float& element = to[transposed ? across * outer + along * kUnit + e : (along * kUnit + e) * outer + across];
        element = is_there ? sign * element_of<kInput>(&shared[at + e * kBytes]) : std::numeric_limits<float>::quiet_NaN();
      }
    }
}

// ---- wgmma.mma_async d, a, b-descriptor, scale-d, scale-a, scale-b{, transpose-a}{, transpose-b}

void issue(Warp& warp, const Instruction& i, const IssuedProduct& product) {
  Block& block = *warp.block;
  Products& products = warp.products;
  std::vector<IssuedProduct>& group = block.products[warp.index / kWarps];
  if (products.issued == group.size()) group.push_back(product);
  else if (!(group[products.issued] == product))
    add_finding(warp, i, kNotTogether, group[products.issued].place,
                warp_name(warp) + " issues another, or one with other operands, as product " + std::to_string(products.issued));
  products.issued++;
  if (!block.machine->launch->check) return;
  warp.tick++;
  products.pending.push_back({&i, products.group, warp.tick});
}

constexpr const char* kBeforeItsWait = "wgmma registers used before its wait";

void take_registers(Warp& warp, const Instruction& i, int accumulators) {
  if (!warp.block->machine->launch->check) return;
  for (int r = 0; r < i.product_registers; r++) {
    ProductRegister& taken = warp.products.registers[i.o[r] / kLanes];
    const bool accumulates = r < accumulators;
    const bool too_early = accumulates ? taken.reading != 0 : taken.accumulating != 0;
    if (too_early || taken.touched)
      add_finding(warp, i, too_early ? kBeforeItsWait : "wgmma without wgmma.fence after its registers were used", -1,
                  (accumulates ? "accumulator " + std::to_string(r) : "register " + std::to_string(r - accumulators) + " of A") +
                      " in " + warp_name(warp));
    taken.touched = false;   // once is enough
    (accumulates ? taken.accumulating : taken.reading)++;
  }
}

// o = D, A (4 registers, or its descriptor), descriptor of B, scale-d. count: n / 8; bytes: k.
template <Input kInput> Flow multiply_async(Warp& warp, const Instruction& i, uint32_t mask) {
  Flow flow;
  if (!is_whole(warp, i, mask, flow)) return flow;
  constexpr int kHalves = kInput == kInTF32 ? 1 : 2;
  const int n = 8 * i.count, k = i.bytes, accumulators = n / 2;
  const bool from_registers = i.option & kFromRegisters;
  const int32_t *d = &i.o[0], *a = d + accumulators, *b = a + (from_registers ? 4 : 1);
  const uint64_t a_bits = from_registers ? 0 : *warp.at<uint64_t>(a[0]), b_bits = *warp.at<uint64_t>(b[0]);
  const uint32_t scales = mask_of(warp.at<uint8_t>(b[1]));
  const auto differ = [&](int32_t descriptor, uint64_t bits) {
    const uint64_t* lanes = warp.at<uint64_t>(descriptor);
    return std::any_of(lanes, lanes + kLanes, [&](uint64_t one) { return one != bits; });
  };
  if (differ(b[0], b_bits) || (!from_registers && differ(a[0], a_bits)) || (scales != 0 && scales != kAllLanes))
    add_finding(warp, i, "wgmma operands that differ between lanes", -1, warp_name(warp));
  const bool adds = scales & 1;
  issue(warp, i, {i.place, a_bits, b_bits, adds});
  take_registers(warp, i, accumulators);

  const float a_sign = i.option & kNegateA ? -1 : 1, b_sign = i.option & kNegateB ? -1 : 1;
  alignas(64) float rows[16 * kRows], columns[16 * 256];   // [k][64] and [k][n]
  const int first = warp.index % kWarps * 16;
  if (from_registers) {
    for (int lane = 0; lane < kLanes; lane++)
      for (int r = 0; r < 4; r++)
        for (int h = 0; h < kHalves; h++) {
          const int step = lane % 4 * kHalves + h + 4 * kHalves * (r / 2), row = first + lane / 4 + 8 * (r % 2);
          rows[step * kRows + row] = a_sign * element_of<kInput>(warp, a[r], lane, h);
        }
  } else {
    read_matrix<kInput>(warp, i, a_bits, kRows, i.option & kTransposeA, a_sign, rows);
  }
  read_matrix<kInput>(warp, i, b_bits, n, i.option & kTransposeB, b_sign, columns);

  // As mma: products are exact in float; their sum is rounded once.
  alignas(64) double sums[16][256] = {};
  for (int row = 0; row < 16; row++)
    for (int step = 0; step < k; step++) {
      const float factor = rows[step * kRows + first + row];
      for (int column = 0; column < n; column++) sums[row][column] += double(factor * columns[step * n + column]);
    }
  for (int r = 0; r < accumulators; r++) {
    float* out = warp.at<float>(d[r]);
    for (int lane = 0; lane < kLanes; lane++) {
      const double sum = sums[lane / 4 + 8 * (r / 2 % 2)][r / 4 * 8 + 2 * (lane % 4) + r % 2];
      out[lane] = float(adds ? sum + double(out[lane]) : sum);
    }
  }
  warp.block->machine->counts.mma_flops += uint64_t(2) * 16 * uint64_t(n) * uint64_t(k);
  return Flow::Next;
}

// ---- wgmma.fence, wgmma.commit_group, wgmma.wait_group n

Flow fence_registers(Warp& warp, const Instruction& i, uint32_t mask) {
  Flow flow;
  if (!is_whole(warp, i, mask, flow)) return flow;
  for (ProductRegister& one : warp.products.registers) one.touched = false;
  return Flow::Next;
}
Flow commit_products(Warp& warp, const Instruction& i, uint32_t mask) {
  Flow flow;
  if (is_whole(warp, i, mask, flow)) warp.products.group++;
  return flow;
}
Flow wait_for_products(Warp& warp, const Instruction& i, uint32_t mask) {
  Flow flow;
  if (!is_whole(warp, i, mask, flow)) return flow;
  Products& products = warp.products;
  uint32_t last = 0;
  size_t complete = 0;
  for (; complete < products.pending.size(); complete++) {
    const PendingProduct& one = products.pending[complete];
    if (one.group + uint64_t(i.immediate) >= products.group) break;
    last = one.tick;
    const int accumulators = 4 * one.instruction->count;
    for (int r = 0; r < one.instruction->product_registers; r++) {
      ProductRegister& held = products.registers[one.instruction->o[r] / kLanes];
      (r < accumulators ? held.accumulating : held.reading)--;
    }
  }
  if (complete == 0) return Flow::Next;
  products.pending.erase(products.pending.begin(), products.pending.begin() + int64_t(complete));
  products.waits.push_back({last, ++warp.tick});
  return Flow::Next;
}

void decode_wgmma(Decoder& d) {
  Instruction& i = d.i;
  i.kind = Class::Sync;
  if (d.take("fence")) i.run = fence_registers;
  else if (d.take("commit_group")) i.run = commit_products;
  else if (d.take("wait_group")) i.immediate = d.integer(0), i.run = wait_for_products;
  if (!d.take("sync") || !d.take("aligned")) d.fail("it is .sync.aligned");
  if (i.run != nullptr) return;

  if (!d.take("mma_async")) d.fail("only .mma_async, .fence, .commit_group and .wait_group");
  const std::string b = d.take_type(), a = d.take_type(), result = d.take_type(), shape = d.take_type();
  int n = 0, k = 0;
  const bool tf32 = a == "tf32";
  if (sscanf(shape.c_str(), "m64n%dk%d", &n, &k) != 2 || n < 8 || n > 256 || n % 8 != 0 || k != (tf32 ? 8 : 16) || a != b ||
      result != "f32" || (a != "f16" && a != "bf16" && !tf32))
    d.fail("no such shape and types");
  i.count = uint8_t(n / 8), i.bytes = uint8_t(k);
  for (size_t part = 0; part < size_t(n / 2); part++) d.to(0, part);
  const bool from_registers = d.atoms(1) > 1;
  if (from_registers)
    for (size_t part = 0; part < 4; part++) d.from<uint32_t>(1, part);
  else d.from<uint64_t>(1);
  i.product_registers = uint8_t(i.o.size() - (from_registers ? 0 : 1));
  if (*std::min_element(i.o.begin(), i.o.begin() + i.product_registers) < special_offset(kSpecials))
    d.fail("its fragments are not in registers");
  d.from<uint64_t>(2), d.from<uint8_t>(3);
  if (d.atom(3).negated) d.fail("its scale-d is negated");
  const size_t transposes = tf32 ? 0 : from_registers ? 1 : 2;
  if (d.operand_count() != 6 + transposes) d.fail("it has " + std::to_string(d.operand_count()) + " operands");
  const auto flag = [&](size_t operand, int64_t set, int64_t unset, uint8_t bit) {
    const int64_t value = d.integer(operand);
    if (value != set && value != unset) d.fail("operand " + std::to_string(operand + 1) + " is " + std::to_string(value));
    if (value == set) i.option |= bit;
  };
  flag(4, -1, 1, kNegateA), flag(5, -1, 1, kNegateB);
  if (transposes == 2) flag(6, 1, 0, kTransposeA);
  if (transposes >= 1) flag(5 + transposes, 1, 0, kTransposeB);
  if (from_registers) i.option |= kFromRegisters;
  i.kind = Class::Tensor;
  i.run = a == "f16" ? multiply_async<kInF16> : a == "bf16" ? multiply_async<kInBF16> : multiply_async<kInTF32>;
}

}  // namespace

void mark_product_registers(Program& program) {
  std::vector<bool> taken(size_t(program.register_bytes / kLanes));
  for (const Instruction& i : program.code)
    for (int r = 0; r < i.product_registers; r++) taken[i.o[r] / kLanes] = program.has_products = true;
  const auto is_taken = [&](int32_t o) { return o >= 0 && taken[o / kLanes]; };
  for (Instruction& i : program.code)
    i.meets_products = i.product_registers == 0 && std::any_of(i.o.begin(), i.o.end(), is_taken);
}

void touch_product_registers(Warp& warp, const Instruction& i) {
  for (int32_t o : i.o) {
    if (o < 0) continue;
    ProductRegister& met = warp.products.registers[o / kLanes];
    met.touched = true;
    if (met.accumulating == 0 && met.reading == 0) continue;
    int32_t place = -1;
    for (const PendingProduct& one : warp.products.pending) {
      const std::vector<int32_t>& taken = one.instruction->o;
      if (std::find(taken.begin(), taken.end(), o) != taken.end()) place = one.instruction->place;
    }
    const std::string what = met.accumulating ? "an accumulator in " : "a register of A in ";
    add_finding(warp, i, kBeforeItsWait, place, what + warp_name(warp));
  }
}

void fence_products(Warp& warp) {
  std::vector<uint32_t>& fenced = warp.products.fenced;
  for (size_t w = 0; w < fenced.size(); w++) fenced[w] = std::max(fenced[w], warp.knows[w]);
  fenced[warp.index] = warp.tick;
}

void check_warpgroups(Block& block) {
  for (size_t group = 0; group < block.products.size(); group++) {
    const std::vector<IssuedProduct>& issued = block.products[group];
    for (size_t w = kWarps * group; w < kWarps * (group + 1) && !issued.empty(); w++) {
      const size_t done = w < block.warps.size() ? block.warps[w].products.issued : 0;
      if (done == issued.size()) continue;
      const std::string who = "warp " + std::to_string(w) + " of block " + std::to_string(block.index) + " has issued ";
      block.machine->findings.add(kNotTogether, issued[done].place, -1,
                                  who + std::to_string(done) + " of the " + std::to_string(issued.size()) +
                                      " products of its warpgroup");
    }
  }
}

const std::vector<Entry>& warpgroup_table() {
  static const std::vector<Entry> table = {
      {"wgmma", ".mma_async.sync.aligned.m64n*.f32.{f16,bf16,tf32}; .{fence,commit_group,wait_group}.sync.aligned",
       "D = A B + D of four warps, beside them until its wait", decode_wgmma},
  };
  return table;
}

}  // namespace ptxsim
