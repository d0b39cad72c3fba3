// One instruction of a program for known shapes. Torch-free.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "../cpu/kernel_table.h"
#include "../cpu/work.h"
#include "program.h"
#include "value.h"

namespace fastinfer::engine {

// Holds sizes and weights; may be run by several calls at once.
class Step {
 public:
  virtual ~Step() = default;
  // Asked while the plan is made. A thread that comes late to a call must not: weights may be gone.
  virtual Work work() const = 0;
  // Thread `thread`'s part of the work. Parts may run at the same time.
  virtual void run(const Frame& frame, int thread, int threads) const = 0;
  // Asks for what it reads first, in the step before; touches nothing, as weights may be gone.
  virtual void fetch() const {}
};

// A buffer the program's steps read: packed weights, tables.
struct Weight {
  const uint8_t* data;
  int64_t bytes;
  // Of a packed weight its header's, from which a plan takes sizes: where one is freed another may
  // come to lie.
  uint64_t print = 0;
  bool operator==(const Weight&) const = default;
};

// The weight there, with its print.
Weight weight_at(const uint8_t* data, int64_t bytes);

// What making steps needs: the values so far (a maker sets its result's), weights, kernels, and where
// values will lie.
struct Context {
  std::vector<Value>& values;
  const std::vector<Weight>& weights;
  const KernelTable& table;
  const std::vector<Place>& places;
  bool are_weights_read_once;

  Value& value(int64_t index) const { return values[static_cast<size_t>(index)]; }
  // Bytes from a pixel of a uint8 image to the next.
  int64_t pixel_step(int64_t index) const {
    const Place& place = places[static_cast<size_t>(index)];
    const int64_t owner = place.is_view ? index : place.owner;
    return value(owner).shape[1] + places[static_cast<size_t>(owner)].gap;
  }
};

using StepMaker = std::unique_ptr<Step> (*)(const Instruction& instruction, Context& context);

// Makers, by kind. They throw std::invalid_argument for shapes an op does not take.
std::unique_ptr<Step> make_quantize(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_dequantize(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_conv2d(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_depthwise_conv2d(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_linear(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_linear_dynamic(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_quantize_rows(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_lookup(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_max_pool2d(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_avg_pool2d(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_adaptive_avg_pool2d(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_add(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_mul(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_cat(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_flatten(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_interleave(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_slice(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_channel_shuffle(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_upsample2d(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_layer_norm(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_softmax(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_global_avg_pool2d(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_float_upsample2d(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_float_unary(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_float_binary(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_float_reduce(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_float_group_norm(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_float_matmul(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_float_attention(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_float_max_pool2d(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_permute(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_reshape(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_roll(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_pad(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_strided_slice(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_pixel_shuffle(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_contiguous(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_join(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_copy(const Instruction& instruction, Context& context);
std::unique_ptr<Step> make_shuffled_slice(const Instruction& instruction, Context& context);

// An instruction's words one after the other, in the order its dataclass has them.
class Operands {
 public:
  Operands(const char* step, const Instruction& instruction)
      : step_(step), words_(instruction.words) {}
  int64_t integer();
  double real();  // a word holds its bits
  std::span<const int64_t> integers(int64_t count);
  const Weight& weight(const Context& context);
  // Whether the next word says that there is no such buffer.
  bool is_absent() const { return !words_.empty() && words_[0] == -1; }

 private:
  const char* step_;
  std::span<const int64_t> words_;
};

// The n floats that the next word names, null where it says that there are none.
const float* float_parameter(const char* step, Operands& operands, const Context& context,
                             int64_t n);

// A constant of the program: the buffer that the next word names, and its shape behind it.
const float* float_constant(const char* step, Operands& operands, const Context& context,
                            std::vector<int64_t>& shape);

// Throws std::invalid_argument("<step>: <text>") unless `holds`.
void expect(bool holds, const char* step, const std::string& text);

std::string shape_text(const Value& value);

// The first value an instruction reads, which must be uint8 [N, C, H, W].
const Value& image(const char* step, const Instruction& instruction, const Context& context);

}  // namespace fastinfer::engine
