// Branches, calls and ends.
#include "lanes.h"

namespace ptxsim {
namespace {

Flow run_branch(Warp& warp, const Instruction& i, uint32_t mask) {
  branch(warp, i, mask);
  return Flow::Control;
}

// All lanes leave together; those whose guard did not hold go on.
Flow run_exit(Warp& warp, const Instruction&, uint32_t mask) {
  exit_split(warp, mask);
  return Flow::Control;
}

Flow run_return(Warp& warp, const Instruction& i, uint32_t mask) {
  Split& split = warp.split();
  if (split.returns.empty()) return run_exit(warp, i, mask);
  if (mask != split.lanes) {   // some return, the others go on
    Split rest = split;
    rest.lanes &= ~mask, rest.place++;
    split.lanes = mask;
    warp.splits.push_back(rest);
  }
  Split& returning = warp.split();
  returning.place = returning.returns.back();
  returning.returns.pop_back();
  return Flow::Control;
}

// call: the lanes meet again behind it.
Flow run_call(Warp& warp, const Instruction& i, uint32_t mask) {
  Split& split = warp.split();
  if (mask != split.lanes) {
    Split rest = split;
    rest.lanes &= ~mask, rest.place++;
    split.lanes = mask;
    warp.splits.push_back(rest);
  }
  Split& calling = warp.split();
  warp.joins.push_back(Join{calling.place + 1, calling.lanes, 0, calling.join, {}, calling.returns.size()});
  calling.join = int32_t(warp.joins.size()) - 1;
  calling.returns.push_back(calling.place + 1);
  calling.place = i.target;
  return Flow::Control;
}

Flow run_trap(Warp& warp, const Instruction& i, uint32_t mask) {
  warp.block->machine->findings.add("trap", i.place, -1,
                                    "lanes 0x" + hex(mask) + " of warp " + std::to_string(warp.index) + " of block " + std::to_string(warp.block->index));
  warp.block->machine->failed = true;
  exit_split(warp, mask);
  return Flow::Control;
}

Flow nothing(Warp&, const Instruction&, uint32_t) { return Flow::Next; }

void decode_bra(Decoder& d) {
  d.take("uni");
  if (d.atom(0).kind != Atom::Label) d.fail("no label");
  d.i.target = int32_t(d.atom(0).value);
  d.i.kind = Class::Control, d.i.run = run_branch;
}
void decode_call(Decoder& d) {
  d.take("uni");
  const Atom& callee = d.atom(0);
  if (callee.kind != Atom::Label) d.fail("the function is not in this module");
  d.i.target = int32_t(callee.value);
  d.i.kind = Class::Control, d.i.run = run_call;
}

}  // namespace

const std::vector<Entry>& control_table() {
  static const std::vector<Entry> table = {
      {"bra", "{.uni} label", "goes to the label", decode_bra},
      {"call", "{.uni} {(d),} function{, (a, ..)}", "runs a function of this module", decode_call},
      {"ret", "{.uni}", "returns, from a kernel: exits", [](Decoder& d) { d.take("uni"), d.i.kind = Class::Control, d.i.run = run_return; }},
      {"exit", "", "ends the lanes", [](Decoder& d) { d.i.kind = Class::Control, d.i.run = run_exit; }},
      {"trap", "", "a finding", [](Decoder& d) { d.i.kind = Class::Control, d.i.run = run_trap; }},
      {"brkpt", "", "nothing", [](Decoder& d) { d.i.kind = Class::Control, d.i.run = nothing; }},
      {"discard", "", "nothing", [](Decoder& d) { d.i.kind = Class::Memory, d.i.run = nothing; }},
  };
  return table;
}

}  // namespace ptxsim
