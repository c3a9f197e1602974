// From the text of an instruction to its decoded form. The table of all instructions is in table.cpp.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "machine.h"

namespace ptxsim {

// An operand as the parser hands it over.
struct Atom {
  enum Kind : int64_t { Register, Integer, Float32, Float64, Sink, Special, Parameter, Variable, Label, Function };
  Kind kind = Sink;
  int64_t value = 0;      // of a register: its offset; of a number: its bits
  int64_t offset = 0;     // of an address
  int64_t bytes = 0;      // of a register, a lane
  bool negated = false;   // !%p
};
using Operand = std::vector<Atom>;   // one atom, or those of {a, b} and d|p
struct Statement {
  std::string opcode;
  Atom guard;
  bool has_guard = false;
  std::vector<Operand> operands;
};

struct DecodeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Decoder {
 public:
  Decoder(const Statement& statement, Program& program, Instruction& instruction, const std::vector<uint64_t>& variables);

  // Modifiers: those that nobody takes are an error, so that none is ever skipped.
  std::string name;                                  // before the first dot
  bool take(const char* modifier);
  std::string take_any(std::initializer_list<const char*> modifiers);   // "" where there is none
  std::string take_type();                           // the last modifier
  [[noreturn]] void fail(const std::string& why) const;
  void finish() const;

  // Operands: each call appends to instruction.o.
  size_t operand_count() const { return statement_.operands.size(); }
  size_t atoms(size_t operand) const { return operand_at(operand).size(); }
  const Atom& atom(size_t operand, size_t part = 0) const;
  void to(size_t operand, size_t part = 0);                          // a destination; '_' is a place of its own
  template <class T> void from(size_t operand, size_t part = 0);     // a source, immediates made constants of T; uint8_t: a predicate
  void from_bytes(size_t operand, size_t part, uint32_t bytes);      // a source of that many bytes a lane
  void address(size_t operand);                                      // [base + offset]: base appended, offset to .immediate
  int64_t integer(size_t operand) const;                             // one that must be immediate

  Instruction& i;

 private:
  const Operand& operand_at(size_t operand) const;
  int32_t constant(const void* value, uint32_t bytes);
  int32_t value_of(const Atom& atom, uint32_t bytes);

  const Statement& statement_;
  Program& program_;
  const std::vector<uint64_t>& variables_;
  std::vector<std::string> modifiers_;
};

template <class T> void Decoder::from(size_t operand, size_t part) {
  i.o.push_back(value_of(atom(operand, part), sizeof(T)));
}
template <> inline void Decoder::from<uint8_t>(size_t operand, size_t part) {
  Atom value = atom(operand, part);
  if (value.kind == Atom::Integer) value.value = value.value != 0;   // true is 1 in every register, and -1 in Triton's text
  i.o.push_back(value_of(value, 1));
}

struct Entry {
  const char* name;
  const char* forms;     // what is understood of it
  const char* meaning;
  void (*decode)(Decoder&);
};
const std::vector<const std::vector<Entry>*>& tables();
void decode(const Statement& statement, Program& program, Instruction& instruction, const std::vector<uint64_t>& variables);

}  // namespace ptxsim
