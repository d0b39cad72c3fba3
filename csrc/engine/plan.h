// A program for given input shapes: steps in order, and memory for what they make. Torch-free.
#pragma once

#include <memory>
#include <mutex>
#include <span>

#include "arena.h"
#include "step.h"

namespace fastinfer::engine {

// What a step of a run took.
struct StepTime {
  double seconds = 0;  // on the first thread, from the end of the step before: waiting included
  double kernel = 0;   // of the thread that ran parts of it for longest
};

// Calls may run at the same time: each has memory of its own.
class Plan : public std::enable_shared_from_this<Plan> {
 public:
  // `inputs` are the program's, with shapes; weights are packed buffers that outlive the plan.
  // Throws std::invalid_argument where an op does not take its shapes.
  Plan(const Program& program, const std::vector<Value>& inputs,
       const std::vector<Weight>& weights, const KernelTable& table);

  const Value& output(size_t index) const {
    return values_[static_cast<size_t>(outputs_[index])];
  }
  size_t outputs() const { return outputs_.size(); }
  const ArenaPlan& arena() const { return arena_; }
  size_t steps() const { return steps_.size(); }
  const Instruction& instruction(size_t step) const { return steps_[step].instruction; }
  const std::vector<Value>& values() const { return values_; }
  // The first dimension of every value, where it is the same for all and none depends on another of
  // its samples; else 0.
  int64_t batch() const { return batch_; }
  int64_t weight_bytes() const { return weight_bytes_; }
  // What concatenations and slices copy in a call.
  int64_t copied_bytes() const { return copied_bytes_; }

  // On at most `threads` threads. times: to be filled for every step, when not empty.
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, int threads,
           std::span<StepTime> times = {}) const;

 private:
  class Call;
  struct Planned {
    std::unique_ptr<Step> step;
    Instruction instruction;
    Work work;
  };
  using Memory = std::unique_ptr<uint8_t, void (*)(void*)>;

  std::vector<Instruction> with_layouts(const std::vector<Instruction>& steps,
                                        const std::vector<Weight>& weights,
                                        const KernelTable& table);
  void make_steps(const std::vector<Instruction>& instructions,
                  const std::vector<Weight>& weights, const KernelTable& table);
  void place();
  Memory take_memory() const;
  void give_back(Memory memory) const;

  const int64_t inputs_;
  std::vector<Value> values_;
  std::vector<int64_t> outputs_;
  std::vector<Planned> steps_;
  ArenaPlan arena_;
  int64_t batch_ = 0, weight_bytes_ = 0, copied_bytes_ = 0;
  std::vector<Place> places_;     // by value
  std::vector<int64_t> offsets_;  // in the arena, of owners; -1 where the memory is the caller's
  mutable std::mutex mutex_;
  mutable std::vector<Memory> free_;
};

}  // namespace fastinfer::engine
