// What Python calls, through ctypes.
#include <thread>

#include "decode.h"

namespace ptxsim {

const std::vector<Entry>& integer_table();
const std::vector<Entry>& floating_table();
const std::vector<Entry>& moves_table();
const std::vector<Entry>& memory_table();
const std::vector<Entry>& warp_table();
const std::vector<Entry>& warpgroup_table();
const std::vector<Entry>& control_table();

const std::vector<const std::vector<Entry>*>& tables() {
  static const std::vector<const std::vector<Entry>*> all = {&integer_table(), &floating_table(), &moves_table(),
                                                             &memory_table(),  &warp_table(),     &warpgroup_table(),
                                                             &control_table()};
  return all;
}

namespace {

thread_local std::string answer;   // what a call returns as text, until the next

void append_json(std::string& out, const std::string& text) {
  out += '"';
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  out += '"';
}

}  // namespace
}  // namespace ptxsim

using namespace ptxsim;

extern "C" {

// All instructions that are known: name, forms and meaning, tab-separated lines.
const char* ptxsim_table() {
  answer.clear();
  for (const std::vector<Entry>* table : tables())
    for (const Entry& entry : *table) answer += std::string(entry.name) + "\t" + entry.forms + "\t" + entry.meaning + "\n";
  return answer.c_str();
}

// Decodes a kernel. `words` holds for each statement: opcode, guard (kind, value, negated or -1), target's join, whether lanes
// reconverge there, number of operands, and for each of those its number of atoms and (kind, value, offset, bytes, negated) of each.
// `header`: register bytes, static shared bytes, param bytes, local bytes, number of static shared arrays and, of each, offset and
// bytes. Returns null and sets the answer where it fails: "statement index\tmessage".
Program* ptxsim_decode(const char* const* opcodes, const int64_t* words, int64_t statements, const int64_t* header,
                       const char* const* shared_names, const uint64_t* variables, int64_t variable_count) {
  auto decoded = std::make_unique<Program>();
  Program& program = *decoded;
  program.register_bytes = int32_t(header[0]);
  program.static_shared = int32_t(header[1]);
  program.param_bytes = int32_t(header[2]);
  program.local_bytes = int32_t(header[3]);
  for (int64_t a = 0; a < header[4]; a++)
    program.shared_arrays.push_back({uint32_t(header[5 + 2 * a]), uint32_t(header[6 + 2 * a]), shared_names[a]});
  const std::vector<uint64_t> addresses(variables, variables + variable_count);
  program.code.resize(size_t(statements));
  for (int64_t s = 0; s < statements; s++) {
    Statement statement;
    statement.opcode = opcodes[*words++];
    statement.has_guard = *words++ != 0;
    statement.guard.kind = Atom::Register;
    statement.guard.value = *words++;
    statement.guard.negated = *words++ != 0;
    Instruction& instruction = program.code[size_t(s)];
    const int64_t join = *words++;
    instruction.reconverges = *words++ != 0;
    statement.operands.resize(size_t(*words++));
    for (Operand& operand : statement.operands) {
      operand.resize(size_t(*words++));
      for (Atom& atom : operand) {
        atom.kind = Atom::Kind(words[0]);
        atom.value = words[1], atom.offset = words[2], atom.bytes = words[3], atom.negated = words[4] != 0;
        words += 5;
      }
    }
    instruction.place = int32_t(s);
    try {
      decode(statement, program, instruction, addresses);
    } catch (const std::exception& error) {
      answer = std::to_string(s) + "\t" + error.what();
      return nullptr;
    }
    if (instruction.kind == Class::Control) instruction.join = int32_t(join);
  }
  mark_product_registers(program);
  return decoded.release();
}

void ptxsim_free(Program* program) { delete program; }
const char* ptxsim_answer() { return answer.c_str(); }
int64_t ptxsim_specials_bytes() { return int64_t(special_offset(kSpecials + 5)); }   // and the scratch rows of packed operations

// Runs it. `shape`: grid, block (3 each), dynamic shared bytes, check, seed, host threads, first block, blocks (0: all).
// `regions`: base, bytes, element bytes, read only, address of the written bytes (0: all are), five words each.
// Returns the report as JSON.
const char* ptxsim_launch(const Program* program, const int64_t* shape, const uint8_t* params, const uint64_t* regions,
                          const char* const* names, int64_t region_count, const uint64_t* former, const char* const* former_names,
                          int64_t former_count) {
  LaunchParams launch;
  for (int axis = 0; axis < 3; axis++) launch.grid[axis] = uint32_t(shape[axis]), launch.block[axis] = uint32_t(shape[3 + axis]);
  launch.dynamic_shared = uint32_t(shape[6]);
  launch.check = shape[7] != 0;
  launch.seed = uint64_t(shape[8]);
  launch.params = params;
  const int threads = int(shape[9]);

  Memory memory;
  for (int64_t r = 0; r < region_count; r++) {
    const uint64_t* w = regions + 5 * r;
    memory.regions.push_back(std::make_unique<Region>(w[0], w[1], names[r], uint32_t(w[2]), reinterpret_cast<uint8_t*>(w[4]), w[3] != 0));
  }
  std::sort(memory.regions.begin(), memory.regions.end(), [](const auto& a, const auto& b) { return a->base < b->base; });
  for (int64_t f = 0; f < former_count; f++) {
    memory.former.push_back({former[2 * f], former[2 * f + 1]});
    memory.former_names.push_back(former_names[f]);
  }

  const uint64_t all = uint64_t(launch.grid[0]) * launch.grid[1] * launch.grid[2];
  const uint64_t first = uint64_t(shape[10]), count = shape[11] != 0 ? uint64_t(shape[11]) : all;
  std::vector<uint64_t> order(count);
  for (uint64_t b = 0; b < count; b++) order[b] = first + b;
  if (launch.seed != 0) {
    std::mt19937_64 random(launch.seed);
    std::shuffle(order.begin(), order.end(), random);
  }
  std::vector<std::unique_ptr<Machine>> machines;
  for (int t = 0; t < threads; t++) machines.push_back(std::make_unique<Machine>(*program, launch, memory));
  std::atomic<uint64_t> next{0};
  auto work = [&](Machine& machine) {
    for (uint64_t b = next++; b < count && !machine.failed; b = next++) machine.run_block(order[b]);
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; t++) others.emplace_back([&, t] { work(*machines[t]); });
  work(*machines[0]);
  for (std::thread& other : others) other.join();

  Counts counts;
  Findings findings;
  for (const auto& machine : machines) counts.add(machine->counts), findings.merge(machine->findings);
  uint64_t read = 0, written = 0;
  memory.unique_sectors(read, written);

  answer = "{\"instructions\":[";
  for (size_t c = 0; c < counts.instructions.size(); c++) answer += (c ? "," : "") + std::to_string(counts.instructions[c]);
  answer += "],\"mma_flops\":" + std::to_string(counts.mma_flops) + ",\"barriers\":" + std::to_string(counts.barriers) +
            ",\"warp_barriers\":" + std::to_string(counts.warp_barriers) + ",\"wide_global\":" + std::to_string(counts.wide_global) +
            ",\"fetched_bytes\":" + std::to_string(counts.fetched_bytes) + ",\"latencies\":" + std::to_string(counts.latencies) +
            ",\"unique_read_sectors\":" + std::to_string(read) + ",\"unique_written_sectors\":" + std::to_string(written) + ",\"lines\":[";
  bool separate = false;
  for (size_t l = 0; l < counts.lines.size(); l++) {
    const LineCounts& line = counts.lines[l];
    if (line.requests == 0 && line.shared_requests == 0) continue;
    answer += (separate ? ",[" : "[") + std::to_string(l);
    for (uint64_t n : {line.requests, line.sectors, line.ideal_sectors, line.bytes, line.shared_requests, line.wavefronts,
                       line.ideal_wavefronts, line.atomics})
      answer += "," + std::to_string(n);
    answer += "]";
    separate = true;
  }
  answer += "],\"findings\":[";
  separate = false;
  for (const auto& [key, finding] : findings.all) {
    answer += separate ? ",[" : "[";
    append_json(answer, finding.kind);
    answer += ",";
    append_json(answer, finding.detail);
    answer += "," + std::to_string(finding.place) + "," + std::to_string(finding.other) + "," + std::to_string(finding.times) + "]";
    separate = true;
  }
  answer += "]}";
  return answer.c_str();
}
}
