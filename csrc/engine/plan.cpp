#include "plan.h"

#include <chrono>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <utility>

#include "thread_pool.h"

namespace fastinfer::engine {
namespace {

constexpr StepMaker kMakers[] = {
    make_quantize, make_dequantize, make_conv2d, make_depthwise_conv2d,
    make_linear,   make_lookup,     nullptr,     nullptr,
    nullptr,       nullptr,         nullptr,     nullptr,
    make_flatten,
};
static_assert(std::size(kMakers) == static_cast<size_t>(StepKind::kCount));

}  // namespace

// What the threads of one call share.
struct Plan::Call {
  const Plan& plan;
  Frame frame;
  std::span<double> seconds;
  mutable Barrier barrier;
};

Plan::Plan(const Program& program, const std::vector<Value>& inputs,
           const std::vector<Weight>& weights, const KernelTable& table)
    : inputs_(program.inputs), outputs_(program.outputs) {
  if (static_cast<int64_t>(inputs.size()) != program.inputs) {
    throw std::invalid_argument("int8_region: expected " + std::to_string(program.inputs) +
                                " inputs, got " + std::to_string(inputs.size()));
  }
  values_ = inputs;
  values_.resize(static_cast<size_t>(program.values));
  Context context{values_, weights, table};
  for (const Instruction& instruction : program.steps) {
    const StepMaker make = kMakers[static_cast<size_t>(instruction.kind)];
    steps_.push_back({make(instruction, context), instruction});
  }
  place();
}

void Plan::place() {
  const auto count = static_cast<int64_t>(steps_.size());
  std::vector<int64_t> made(values_.size(), -1), read(values_.size(), -1);
  for (int64_t i = 0; i < count; i++) {
    const Instruction& instruction = steps_[static_cast<size_t>(i)].instruction;
    made[static_cast<size_t>(instruction.out)] = i;
    for (const int64_t value : instruction.reads) read[static_cast<size_t>(value)] = i;
  }
  places_.assign(values_.size(), -1);
  for (const int64_t value : outputs_) made[static_cast<size_t>(value)] = -1;
  std::vector<Lifetime> lifetimes;
  std::vector<size_t> owners;
  for (size_t value = static_cast<size_t>(inputs_); value < values_.size(); value++) {
    if (made[value] < 0) continue;
    lifetimes.push_back({values_[value].bytes(), made[value], std::max(made[value], read[value])});
    owners.push_back(value);
  }
  arena_ = plan_arena(lifetimes);
  for (size_t i = 0; i < owners.size(); i++) places_[owners[i]] = arena_.offsets[i];
}

void Plan::run(std::span<const void* const> inputs, std::span<void* const> outputs, int threads,
               std::span<double> seconds) const {
  const ThreadPool::Job job = [](void* context, int thread, int count) {
    const auto& call = *static_cast<const Call*>(context);
    call.plan.run_steps(call, thread, count);
  };
  Memory memory = take_memory();
  Call call{*this, Frame(values_.size(), nullptr), seconds, {}};
  for (size_t i = 0; i < places_.size(); i++) {
    if (places_[i] >= 0) call.frame[i] = memory.get() + places_[i];
  }
  // Inputs are only read.
  for (size_t i = 0; i < inputs.size(); i++) {
    call.frame[i] = static_cast<uint8_t*>(const_cast<void*>(inputs[i]));
  }
  for (size_t i = 0; i < outputs.size(); i++) {
    call.frame[static_cast<size_t>(outputs_[i])] = static_cast<uint8_t*>(outputs[i]);
  }
  ThreadPool::instance().run(threads, job, &call);
  give_back(std::move(memory));
}

// Between two steps all threads meet, unless the first thread does both alone.
void Plan::run_steps(const Call& call, int thread, int threads) const {
  bool was_alone = true;
  auto start = std::chrono::steady_clock::now();
  for (size_t i = 0; i < steps_.size(); i++) {
    const Step& step = *steps_[i].step;
    const int used = step.threads(threads);
    const bool is_alone = used <= 1;
    if (threads > 1 && !(was_alone && is_alone)) call.barrier.wait(threads);
    was_alone = is_alone;
    if (thread < used) step.run(call.frame, thread, used);
    if (thread == 0 && !call.seconds.empty()) {
      const auto now = std::chrono::steady_clock::now();
      call.seconds[i] += std::chrono::duration<double>(now - start).count();
      start = now;
    }
  }
}

Plan::Memory Plan::take_memory() const {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!free_.empty()) {
      Memory memory = std::move(free_.back());
      free_.pop_back();
      return memory;
    }
  }
  const auto bytes = static_cast<size_t>(arena_.bytes + 4095) / 4096 * 4096;
  Memory memory(static_cast<uint8_t*>(std::aligned_alloc(4096, std::max<size_t>(bytes, 4096))),
                std::free);
  if (!memory) throw std::bad_alloc();
  return memory;
}

void Plan::give_back(Memory memory) const {
  // As many stay as calls ran at the same time lately, one at least per core.
  const std::lock_guard<std::mutex> lock(mutex_);
  if (free_.size() < static_cast<size_t>(usable_cpus())) free_.push_back(std::move(memory));
}

}  // namespace fastinfer::engine
