#include "decode.h"

#include <unordered_map>

namespace ptxsim {

Decoder::Decoder(const Statement& statement, Program& program, Instruction& instruction, const std::vector<uint64_t>& variables)
    : i(instruction), statement_(statement), program_(program), variables_(variables) {
  size_t start = 0;
  const std::string& opcode = statement.opcode;
  while (start <= opcode.size()) {
    size_t dot = opcode.find('.', start);
    if (dot == std::string::npos) dot = opcode.size();
    std::string part = opcode.substr(start, dot - start);
    if (start == 0) name = part;
    else modifiers_.push_back(part);
    start = dot + 1;
  }
}

bool Decoder::take(const char* modifier) {
  for (size_t m = 0; m < modifiers_.size(); m++) {
    if (modifiers_[m] != modifier) continue;
    modifiers_.erase(modifiers_.begin() + m);
    return true;
  }
  return false;
}

std::string Decoder::take_any(std::initializer_list<const char*> modifiers) {
  for (const char* modifier : modifiers)
    if (take(modifier)) return modifier;
  return "";
}

std::string Decoder::take_type() {
  if (modifiers_.empty()) fail("it has no type");
  std::string type = modifiers_.back();
  modifiers_.pop_back();
  return type;
}

void Decoder::fail(const std::string& why) const { throw DecodeError(why); }

void Decoder::finish() const {
  if (!modifiers_.empty()) fail("modifier ." + modifiers_.front() + " is not known here");
}

const Operand& Decoder::operand_at(size_t operand) const {
  if (operand >= statement_.operands.size()) fail("it has " + std::to_string(statement_.operands.size()) + " operands");
  return statement_.operands[operand];
}

const Atom& Decoder::atom(size_t operand, size_t part) const {
  const Operand& atoms = operand_at(operand);
  if (part >= atoms.size()) fail("operand " + std::to_string(operand + 1) + " has " + std::to_string(atoms.size()) + " parts");
  return atoms[part];
}

int32_t Decoder::constant(const void* value, uint32_t bytes) {
  const int32_t offset = int32_t(program_.constants.size());
  for (int lane = 0; lane < kLanes; lane++) {
    const uint8_t* from = static_cast<const uint8_t*>(value);
    program_.constants.insert(program_.constants.end(), from, from + bytes);
  }
  while (program_.constants.size() % 16) program_.constants.push_back(0);
  return ~offset;
}

int32_t Decoder::value_of(const Atom& atom, uint32_t bytes) {
  switch (atom.kind) {
    case Atom::Register: return int32_t(atom.value);
    case Atom::Special: return special_offset(int(atom.value));
    case Atom::Integer:
    case Atom::Float32: {
      const int64_t value = atom.value;
      return constant(&value, bytes);
    }
    case Atom::Float64: {
      if (bytes == 8) return constant(&atom.value, 8);
      double wide;
      std::memcpy(&wide, &atom.value, 8);
      const float narrow = float(wide);
      return constant(&narrow, bytes);
    }
    case Atom::Variable: {
      const uint64_t address = variables_[size_t(atom.value)] + uint64_t(atom.offset);
      return constant(&address, bytes);
    }
    case Atom::Parameter: {   // its address in the space of parameters
      const int64_t address = atom.value + atom.offset;
      return constant(&address, bytes);
    }
    default: fail("an operand is not a value");
  }
}

void Decoder::to(size_t operand, size_t part) {
  i.results++;
  const Atom& target = atom(operand, part);
  if (target.kind == Atom::Sink) i.o.push_back(special_offset(kSink));
  else if (target.kind == Atom::Register) i.o.push_back(int32_t(target.value));
  else fail("its destination is not a register");
}

void Decoder::from_bytes(size_t operand, size_t part, uint32_t bytes) {
  i.o.push_back(value_of(atom(operand, part), bytes));
}

void Decoder::address(size_t operand) {
  const Atom& base = atom(operand);
  i.immediate = base.offset;
  if (base.kind == Atom::Variable) i.immediate = 0;
  i.o.push_back(value_of(base, 8));
}

int64_t Decoder::integer(size_t operand) const {
  const Atom& value = atom(operand);
  if (value.kind != Atom::Integer) fail("operand " + std::to_string(operand + 1) + " is not a number");
  return value.value;
}

void decode(const Statement& statement, Program& program, Instruction& instruction, const std::vector<uint64_t>& variables) {
  static const auto by_name = [] {
    std::unordered_map<std::string, const Entry*> entries;
    for (const std::vector<Entry>* table : tables())
      for (const Entry& entry : *table) entries[entry.name] = &entry;
    return entries;
  }();
  Decoder decoder(statement, program, instruction, variables);
  const auto entry = by_name.find(decoder.name);
  if (entry == by_name.end()) decoder.fail("unknown instruction");
  if (statement.has_guard) {
    instruction.guard = int32_t(statement.guard.value);
    instruction.guard_negated = statement.guard.negated;
  }
  entry->second->decode(decoder);
  decoder.finish();
  if (instruction.run == nullptr) decoder.fail("no such form");
}

}  // namespace ptxsim
