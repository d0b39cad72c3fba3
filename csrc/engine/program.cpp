#include "program.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace fastinfer::engine {
namespace {

constexpr const char* kMagic = "fastinfer-region";
constexpr int64_t kVersion = 1;

// Reads words one after the other, never past their end.
class Words {
 public:
  explicit Words(const std::string& text) : next_(text.c_str()) {}

  std::string word() {
    while (*next_ == ' ') next_++;
    const char* end = next_;
    while (*end != ' ' && *end != '\0') end++;
    if (end == next_) throw std::invalid_argument("int8_region: program: it ends early");
    std::string text(next_, end);
    next_ = end;
    return text;
  }

  // An integer, or the bits of a real number.
  int64_t number() {
    const std::string text = word();
    char* end = nullptr;
    int64_t value;
    if (text.find_first_of("xin") == std::string::npos) {
      value = std::strtoll(text.c_str(), &end, 10);
    } else {
      const double real = std::strtod(text.c_str(), &end);
      std::memcpy(&value, &real, sizeof(value));
    }
    if (*end != '\0') {
      throw std::invalid_argument("int8_region: program: expected a number, got " + text);
    }
    return value;
  }

  std::vector<int64_t> numbers() {
    const int64_t count = number();
    std::vector<int64_t> values;
    for (int64_t i = 0; i < count; i++) values.push_back(number());
    return values;
  }

  bool is_done() const { return next_[std::strspn(next_, " ")] == '\0'; }

 private:
  const char* next_;
};

void check_values(const Program& program, const std::vector<int64_t>& values) {
  for (const int64_t value : values) {
    if (value < 0 || value >= program.values) {
      throw std::invalid_argument("int8_region: program: no value " + std::to_string(value));
    }
  }
}

}  // namespace

Program read_program(const std::string& text) {
  Words in(text);
  if (in.word() != kMagic || in.number() != kVersion) {
    throw std::invalid_argument("int8_region: program: not one of version " +
                                std::to_string(kVersion) + "; convert the model again");
  }
  Program program{};
  program.inputs = in.number();
  program.values = in.number();
  if (program.inputs < 0 || program.inputs > program.values) {
    throw std::invalid_argument("int8_region: program: more inputs than values");
  }
  program.outputs = in.numbers();
  check_values(program, program.outputs);
  const int64_t steps = in.number();
  for (int64_t i = 0; i < steps; i++) {
    const int64_t kind = in.number();
    if (kind < 0 || kind >= static_cast<int64_t>(StepKind::kCount)) {
      throw std::invalid_argument("int8_region: program: unknown step " + std::to_string(kind));
    }
    const int64_t out = in.number();
    Instruction step{static_cast<StepKind>(kind), out, in.numbers(), in.numbers()};
    check_values(program, {step.out});
    check_values(program, step.reads);
    program.steps.push_back(std::move(step));
  }
  if (!in.is_done()) throw std::invalid_argument("int8_region: program: words left over");
  return program;
}

}  // namespace fastinfer::engine
