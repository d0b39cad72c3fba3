#include "program.h"

#include <stdexcept>
#include <string>
#include <utility>

namespace fastinfer::engine {
namespace {

constexpr int64_t kMagic = 0x4649454e47494e45;  // "FIENGINE"
constexpr int64_t kVersion = 1;

// Reads words one after the other, never past their end.
class Words {
 public:
  explicit Words(std::span<const int64_t> words)
      : next_(words.data()), left_(static_cast<int64_t>(words.size())) {}
  int64_t one() {
    if (left_ <= 0) throw std::invalid_argument("int8_region: program: it ends early");
    left_--;
    return *next_++;
  }
  std::vector<int64_t> many() {
    const int64_t count = one();
    if (count < 0 || count > left_) {
      throw std::invalid_argument("int8_region: program: it ends early");
    }
    std::vector<int64_t> words(next_, next_ + count);
    next_ += count;
    left_ -= count;
    return words;
  }
  bool is_done() const { return left_ == 0; }

 private:
  const int64_t* next_;
  int64_t left_;
};

void check_values(const Program& program, const std::vector<int64_t>& values) {
  for (const int64_t value : values) {
    if (value < 0 || value >= program.values) {
      throw std::invalid_argument("int8_region: program: no value " + std::to_string(value));
    }
  }
}

}  // namespace

int64_t program_id(std::span<const int64_t> words) {
  Words in(words);
  if (in.one() != kMagic || in.one() != kVersion) {
    throw std::invalid_argument("int8_region: program: not one of version " +
                                std::to_string(kVersion) + "; convert the model again");
  }
  return in.one();
}

Program read_program(std::span<const int64_t> words) {
  Program program{};
  program.id = program_id(words);
  Words in(words.subspan(3));
  program.inputs = in.one();
  program.values = in.one();
  program.outputs = in.many();
  check_values(program, program.outputs);
  const int64_t steps = in.one();
  for (int64_t i = 0; i < steps; i++) {
    const int64_t kind = in.one();
    if (kind < 0 || kind >= static_cast<int64_t>(StepKind::kCount)) {
      throw std::invalid_argument("int8_region: program: unknown step " + std::to_string(kind));
    }
    Instruction step{static_cast<StepKind>(kind), in.one(), in.many(), in.many()};
    check_values(program, {step.out});
    check_values(program, step.reads);
    program.steps.push_back(std::move(step));
  }
  if (!in.is_done()) throw std::invalid_argument("int8_region: program: words left over");
  return program;
}

}  // namespace fastinfer::engine
