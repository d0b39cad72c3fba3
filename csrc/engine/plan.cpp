#include "plan.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <new>
#include <stdexcept>
#include <utility>

#include "../cpu/read_once.h"
#include "first_error.h"
#include "futex.h"
#include "in_place.h"
#include "strided.h"
#include "thread_pool.h"
#include "traits.h"
#include "views.h"

namespace fastinfer::engine {
namespace {

constexpr StepMaker kMakers[] = {
    make_quantize,   make_dequantize,          make_conv2d, make_depthwise_conv2d, make_linear,
    make_lookup,     make_max_pool2d,          make_avg_pool2d,
    make_adaptive_avg_pool2d, make_add, make_mul, make_cat, make_flatten,
    make_slice, make_channel_shuffle, make_upsample2d, make_layer_norm,
    make_softmax, make_global_avg_pool2d, make_float_upsample2d, make_float_unary,
    make_float_binary, make_float_reduce, make_float_group_norm, make_float_matmul, make_float_attention, make_float_max_pool2d, make_permute,
    make_reshape, make_roll, make_pad, make_strided_slice, make_pixel_shuffle, make_join, make_contiguous,
    make_linear_dynamic, make_interleave, make_shuffled_slice, make_copy, make_quantize_rows,
};
static_assert(std::size(kMakers) == static_cast<size_t>(StepKind::kQuantizeRows) + 1);

int64_t common_batch(const std::vector<Instruction>& steps, const std::vector<Value>& values,
                     int64_t inputs) {
  const auto leading = [&](int64_t index) {
    const Value& value = values[static_cast<size_t>(index)];
    return value.shape.empty() ? 0 : value.shape[0];
  };
  const int64_t batch = values.empty() ? 0 : leading(0);
  bool is_common = true;
  for (int64_t input = 0; input < inputs; input++) is_common &= leading(input) == batch;
  if (!is_common || batch == 0) return 0;
  // A sample may be several of a value's: the windows of an image.
  for (const Instruction& step : steps) {
    is_common &= leading(step.out) % batch == 0 && !mixes_samples(step, values, batch);
  }
  return is_common ? batch : 0;
}

int64_t bytes_with_gaps(const Value& value, const Place& place) {
  if (place.gap == 0) return value.bytes();
  return value.bytes() / value.shape[1] * (value.shape[1] + place.gap);
}

}  // namespace

// One run of a plan. A step has as many parts as it has use for threads, and a thread takes the part
// of its own number if it comes in time. A thread that is done with its part takes what others have
// not begun, so that one without a core to run on holds up nobody.
class Plan::Call : public Job {
 public:
  Call(std::shared_ptr<const Plan> plan, Frame frame, std::span<StepTime> times)
      : plan_(std::move(plan)),
        frame_(std::move(frame)),
        times_(times),
        states_(new State[plan_->steps_.size()]) {}

  void run(int thread, int threads) override {
    threads = std::min(threads, kMostParts);
    if (thread >= threads) return;
    // A late thread finds the times' memory gone: only the first one may touch it.
    const bool is_timed = thread == 0 && !times_.empty();
    Clock::time_point start;
    if (is_timed) start = Clock::now();
    int patience = kPatience;
    for (size_t i = 0; i < plan_->steps_.size(); i++) {
      run_step(i, thread, threads, patience);
      if (!is_timed) continue;
      const Clock::time_point now = Clock::now();
      times_[i] = {seconds(now - start), seconds(Clock::duration(states_[i].longest.load()))};
      start = now;
    }
    if (thread == 0) error_.rethrow();
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double seconds(Clock::duration time) {
    return std::chrono::duration<double>(time).count();
  }

  static constexpr int kMostParts = 64;
  // Pauses of 10 to 40 ns before another thread's part is taken.
  static constexpr int kPatience = 100;

  // A line of cache takes some 140 ns from core to core. So parts that begin at the same time are taken
  // on lines of their own, and a thread fetches those it will write while it still computes.
  static constexpr int kTakenLines = 4;
  struct alignas(64) Taken {
    std::atomic<uint64_t> parts{0};  // a bit for each
  };
  struct State {
    Taken taken[kTakenLines];
    alignas(64) Signal done;
    std::atomic<Clock::rep> longest{0};  // that a thread spent, where times are wanted
  };

  // Returns when the whole step is done.
  void run_step(size_t index, int thread, int threads, int& patience) {
    State& state = states_[index];
    const Step& step = *plan_->steps_[index].step;
    const int parts = useful_threads(plan_->steps_[index].work, threads);
    Clock::rep spent = 0;
    fetch_lines(index, thread, parts);
    if (thread < parts) take(state, step, thread, parts, spent);
    const auto all = static_cast<uint32_t>(parts);
    for (int spins = 0; spins < patience && state.done.value() < all; spins++) pause_cpu();
    if (state.done.value() < all) {
      bool took = false;
      for (int part = 0; part < parts; part++) {
        took |= take(state, step, part, parts, spent);
      }
      // Somebody who missed a step misses the next one, too.
      if (took) patience = 0;
      state.done.await(all);
    }
    if (parts == threads && patience == 0) patience = kPatience / 10;
  }

  // What this thread writes when its part is done, and what it needs to begin its next one: in a network
  // that fills the caches every step would wait for its own description and its first weights.
  void fetch_lines(size_t index, int thread, int parts) const {
    const std::vector<Planned>& steps = plan_->steps_;
    if (parts > 1) __builtin_prefetch(&states_[index].done, 1);
    if (index + 1 == steps.size()) return;
    __builtin_prefetch(&states_[index + 1].taken[thread % kTakenLines], 1);
    steps[index + 1].step->fetch();
    if (index + 2 < steps.size()) __builtin_prefetch(steps[index + 2].step.get());
  }

  // Runs a part nobody has taken; false when it was. spent: this thread's time in the step's parts.
  bool take(State& state, const Step& step, int part, int parts, Clock::rep& spent) {
    const uint64_t bit = uint64_t{1} << part;
    std::atomic<uint64_t>& taken = state.taken[part % kTakenLines].parts;
    if ((taken.load(std::memory_order_relaxed) & bit) != 0) return false;
    if ((taken.fetch_or(bit, std::memory_order_relaxed) & bit) != 0) return false;
    try {
      run_part(state, step, part, parts, spent);
    } catch (...) {
      error_.keep();
    }
    state.done.raise();
    return true;
  }

  void run_part(State& state, const Step& step, int part, int parts, Clock::rep& spent) {
    if (times_.empty()) return step.run(frame_, part, parts);
    const Clock::time_point start = Clock::now();
    step.run(frame_, part, parts);
    spent += (Clock::now() - start).count();
    Clock::rep longest = state.longest.load();
    while (spent > longest && !state.longest.compare_exchange_weak(longest, spent)) {
    }
  }

  const std::shared_ptr<const Plan> plan_;
  const Frame frame_;
  const std::span<StepTime> times_;
  const std::unique_ptr<State[]> states_;
  FirstError error_;
};

Plan::Plan(const Program& program, const std::vector<Value>& inputs,
           const std::vector<Weight>& weights, const KernelTable& table)
    : inputs_(program.inputs), outputs_(program.outputs) {
  if (static_cast<int64_t>(inputs.size()) != program.inputs) {
    throw std::invalid_argument("int8_region: expected " + std::to_string(program.inputs) +
                                " inputs, got " + std::to_string(inputs.size()));
  }
  for (const Weight& weight : weights) weight_bytes_ += weight.bytes;
  values_ = inputs;
  values_.resize(static_cast<size_t>(program.values));
  const std::vector<Instruction> instructions =
      with_layouts(with_shuffled_slices(program.steps, outputs_), weights, table);
  // Now shapes are known, and with them what can lie in what: steps are made for that.
  places_ = shared_places(std::move(places_), instructions, values_, inputs_, outputs_);
  reuse_operands(places_, instructions, values_, inputs_, outputs_);
  open_gaps(places_, instructions, values_, inputs_, outputs_);
  make_steps(instructions, weights, table);
  for (const Instruction& step : instructions) {
    copied_bytes_ += engine::copied_bytes(step, values_, places_);
  }
  place();
  batch_ = common_batch(instructions, values_, inputs_);
}

// Steps of the instructions that are more than a view, for values where they lie.
void Plan::make_steps(const std::vector<Instruction>& instructions,
                      const std::vector<Weight>& weights, const KernelTable& table) {
  steps_.clear();
  Context context{values_, weights, table, places_, are_read_once(weight_bytes_)};
  for (const Instruction& instruction : instructions) {
    if (is_view(instruction, values_, places_)) continue;
    const StepMaker make = kMakers[static_cast<size_t>(instruction.kind)];
    std::unique_ptr<Step> step = make(instruction, context);
    const Work work = step->work();
    steps_.push_back({std::move(step), instruction, work});
  }
}

// Finds every value's shape and layout; where a step wants another layout a copy in that is made first.
std::vector<Instruction> Plan::with_layouts(const std::vector<Instruction>& steps,
                                            const std::vector<Weight>& weights,
                                            const KernelTable& table) {
  places_ = own_places(values_.size());
  std::vector<Instruction> found;
  std::map<std::pair<int64_t, bool>, int64_t> copies;  // of a value in planes or not
  Context context{values_, weights, table, places_, are_read_once(weight_bytes_)};
  const auto value_at = [&](int64_t index) -> Value& { return values_[static_cast<size_t>(index)]; };
  const auto append = [&](Instruction step) {
    if (std::optional<View> view = view_of(step, context)) {
      const Place& from = places_[static_cast<size_t>(step.reads[0])];
      places_[static_cast<size_t>(step.out)] = {from.owner, from.first + view->first, 0, true};
      value_at(step.out) = std::move(view->value);
    } else {
      kMakers[static_cast<size_t>(step.kind)](step, context);
    }
    found.push_back(std::move(step));
  };
  const auto copy = [&](int64_t value, bool in_planes) {
    const auto [at, is_new] = copies.try_emplace({value, in_planes}, static_cast<int64_t>(values_.size()));
    if (!is_new) return at->second;
    const bool is_planar = value_at(value).is_planar;
    values_.emplace_back();
    places_.push_back({at->second, 0});
    if (is_planar && !in_planes) {
      append({StepKind::kInterleave, at->second, {value}, {}});
    } else {
      append({StepKind::kCopy, at->second, {value}, {in_planes ? 1 : 0}});
    }
    return at->second;
  };
  // What a dynamic linear layer reads: layers of one input, as attention's, quantize it once.
  std::map<int64_t, int64_t> quantized;
  const auto quantize_rows = [&](Instruction& linear) {
    const auto [at, is_new] = quantized.try_emplace(linear.reads[0], static_cast<int64_t>(values_.size()));
    const Value x = value_at(linear.reads[0]);
    if (is_new) {
      values_.emplace_back();
      places_.push_back({at->second, 0});
      append({StepKind::kQuantizeRows, at->second, {linear.reads[0]}, {}});
    }
    linear.words.push_back(x.shape.empty() ? 0 : x.shape.back());
    linear.reads[0] = at->second;
  };
  std::vector<bool> may_be_planar(values_.size());  // as a result of the program
  for (Instruction step : steps) {
    for (size_t i = 0; i < step.reads.size(); i++) {
      const Value& value = value_at(step.reads[i]);
      const Layout wanted = wanted_layout(step, i);
      if (wanted == Layout::kAny) continue;
      const bool is_dense = value.strides.empty(), is_image = value.shape.size() == 4;
      const bool is_of_one = wanted == Layout::kPixels || wanted == Layout::kPlanes;
      const bool is_right =
          !is_of_one || !is_image || value.is_planar == (wanted == Layout::kPlanes);
      if ((is_dense && is_right) || (wanted == Layout::kPacked && is_packed(value))) continue;
      const bool in_planes = wanted == Layout::kPlanes ||
                             (wanted != Layout::kPixels && dense_like(value, value.shape).is_planar);
      step.reads[i] = copy(step.reads[i], in_planes);
    }
    if (step.kind == StepKind::kLinearDynamic) quantize_rows(step);
    may_be_planar[static_cast<size_t>(step.out)] = step.kind == StepKind::kFloatUpsample2d ||
                                                   step.kind == StepKind::kContiguous ||
                                                   step.kind == StepKind::kLinearDynamic;
    append(std::move(step));
  }
  // The caller gets images in NHWC memory, but for those that only he reads.
  for (int64_t& output : outputs_) {
    const Value& value = value_at(output);
    const bool is_right = !value.is_planar || may_be_planar[static_cast<size_t>(output)];
    const bool is_view = places_[static_cast<size_t>(output)].is_view;
    if (!value.strides.empty() || !is_right || is_view) output = copy(output, false);
  }
  return found;
}

// An owner lives from the making of its first channels to the last reading of any.
void Plan::place() {
  const auto owner = [&](int64_t value) {
    return static_cast<size_t>(places_[static_cast<size_t>(value)].owner);
  };
  const auto count = static_cast<int64_t>(steps_.size());
  std::vector<int64_t> made(values_.size(), count), used(values_.size(), -1);
  for (int64_t i = 0; i < count; i++) {
    const Instruction& instruction = steps_[static_cast<size_t>(i)].instruction;
    const size_t out = owner(instruction.out);
    made[out] = std::min(made[out], i);
    used[out] = i;
    for (const int64_t value : instruction.reads) used[owner(value)] = i;
  }
  for (const int64_t output : outputs_) made[static_cast<size_t>(output)] = count;
  offsets_.assign(values_.size(), -1);
  std::vector<Lifetime> lifetimes;
  std::vector<size_t> owners;
  for (size_t value = static_cast<size_t>(inputs_); value < values_.size(); value++) {
    if (made[value] == count) continue;
    lifetimes.push_back({bytes_with_gaps(values_[value], places_[value]), made[value], used[value]});
    owners.push_back(value);
  }
  arena_ = plan_arena(lifetimes);
  for (size_t i = 0; i < owners.size(); i++) offsets_[owners[i]] = arena_.offsets[i];
}

void Plan::run(std::span<const void* const> inputs, std::span<void* const> outputs, int threads,
               std::span<StepTime> times) const {
  Memory memory = take_memory();
  Frame frame(values_.size(), nullptr);
  for (size_t i = 0; i < offsets_.size(); i++) {
    if (offsets_[i] >= 0) frame[i] = memory.get() + offsets_[i];
  }
  // Inputs are only read.
  for (size_t i = 0; i < inputs.size(); i++) {
    frame[i] = static_cast<uint8_t*>(const_cast<void*>(inputs[i]));
  }
  for (size_t i = 0; i < outputs.size(); i++) {
    frame[static_cast<size_t>(outputs_[i])] = static_cast<uint8_t*>(outputs[i]);
  }
  for (size_t i = 0; i < places_.size(); i++) {
    const auto owner = static_cast<size_t>(places_[i].owner);
    if (owner != i && frame[owner] != nullptr) frame[i] = frame[owner] + places_[i].first;
  }
  ThreadPool::instance().run(
      threads, std::make_shared<Call>(shared_from_this(), std::move(frame), times));
  give_back(std::move(memory));
}

Plan::Memory Plan::take_memory() const {
  {
    // Not lock(): a child forked while another thread had the lock would wait for ever.
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (lock && !free_.empty()) {
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
  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (lock && free_.size() < static_cast<size_t>(usable_cpus())) free_.push_back(std::move(memory));
}

}  // namespace fastinfer::engine
