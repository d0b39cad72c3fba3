#include "sparse_float_driver.h"

#include <algorithm>
#include <limits>

#include "scratch.h"

namespace fastinfer {
namespace {

// Outputs of a part: their sums stay in L2, and what was gathered of the inputs in L1.
constexpr int64_t kMaxOutputs = 512;
// Places are bytes: none is beyond what is allotted, whatever a weight says.
constexpr int64_t kPlaces = 256;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

SparseFloatDriver::SparseFloatDriver(const KernelTable& table, const SparseFloatWeight& weight,
                                     const FloatPlanes& planes, float* out, bool as_rows)
    : kernels_(table.sparse_float),
      weight_(weight),
      planes_(planes),
      out_(out),
      as_rows_(as_rows),
      vectors_(divide_up(planes.positions, kernels_.lanes)),
      blocks_(divide_up(vectors_, kernels_.vectors)),
      parts_(divide_up(weight.outputs, kMaxOutputs)),
      finishes_(weight.residual != nullptr || weight.clamp_min > -kInfinity ||
                weight.clamp_max < kInfinity) {}

Work SparseFloatDriver::work() const {
  const int64_t positions = planes_.images * planes_.positions;
  const int64_t moved = weight_.groups * (weight_.inputs + weight_.outputs) * positions;
  return {weight_.entries * positions + moved * kMoveWork,
          planes_.images * weight_.groups * blocks_ * weight_.outputs};
}

void SparseFloatDriver::split_for(int threads) {
  const int64_t others = planes_.images * weight_.groups * blocks_;
  // Few blocks leave threads without work, or one of them with twice as much as the next.
  if (threads > 1 && others * parts_ < 4 * threads && others * parts_ % threads != 0) {
    parts_ = std::min(weight_.outputs, divide_up(parts_, threads) * threads);
  }
}

void SparseFloatDriver::run_part(int thread, int threads) const {
  const int64_t outputs = divide_up(weight_.outputs, parts_);
  const int64_t width = int64_t{kernels_.vectors} * kernels_.lanes;
  struct Sparse;
  float* x = reinterpret_cast<float*>(
      scratch<Sparse>((kPlaces + outputs) * width * static_cast<int64_t>(sizeof(float))));
  const Range share =
      share_of(planes_.images * weight_.groups * blocks_ * parts_, thread, threads);
  for (int64_t i = share.begin; i < share.end; i++) {
    const int64_t part = i % parts_, block = i / parts_ % blocks_, image = i / parts_ / blocks_;
    // Blocks of nearly equal width: a narrow one costs almost as much as a wide one.
    const int64_t first = vectors_ * block / blocks_, last = vectors_ * (block + 1) / blocks_;
    const int64_t position = first * kernels_.lanes, output = part * outputs;
    const Block one{image / weight_.groups,
                    image % weight_.groups,
                    position,
                    std::min(last * kernels_.lanes, planes_.positions) - position,
                    output,
                    std::min(outputs, weight_.outputs - output),
                    static_cast<int>(last - first)};
    if (one.outputs > 0) run_block(one, x, x + kPlaces * width);
  }
}

void SparseFloatDriver::run_block(const Block& block, float* x, float* sums) const {
  const int64_t width = int64_t{block.vectors} * kernels_.lanes;
  const int64_t first_output = block.group * weight_.outputs + block.output;
  const int64_t steps = weight_.steps();
  SparseFloatGather gather{planes_.base + block.image * planes_.image_step +
                               block.group * planes_.group_step + block.position,
                           nullptr, 0, block.vectors, block.positions, x};
  SparseFloatStep step{x,       weight_.values,  weight_.places, nullptr,
                       weight_.entries, block.outputs, true,
                       weight_.bias == nullptr ? nullptr : weight_.bias + first_output, sums};
  for (int64_t s = 0; s < steps; s++) {
    const int64_t first = s * kSparseFloatInputs;
    gather.offsets = planes_.offsets.data() + first;
    gather.inputs =
        static_cast<int>(std::min<int64_t>(kSparseFloatInputs, weight_.inputs - first));
    kernels_.gather(gather);
    step.starts =
        weight_.starts + (block.group * steps + s) * weight_.outputs + block.output;
    kernels_.rows[block.vectors - 1](step);
    step.begins = false;
  }
  if (as_rows_) {
    write_rows(block, sums);
  } else {
    write_planes(block, sums);
  }
}

void SparseFloatDriver::write_rows(const Block& block, const float* sums) const {
  const int64_t width = int64_t{block.vectors} * kernels_.lanes;
  const int64_t at = block.position * weight_.outputs + block.output;
  transpose(sums, width, block.outputs, block.positions, out_ + at, weight_.outputs);
  if (!finishes_) return;
  for (int64_t p = 0; p < block.positions; p++) {
    float* row = out_ + at + p * weight_.outputs;
    finish(row, row, block.outputs);
  }
}

void SparseFloatDriver::write_planes(const Block& block, const float* sums) const {
  const int64_t width = int64_t{block.vectors} * kernels_.lanes;
  const int64_t rows = divide_up(planes_.positions, planes_.pitch);
  const int64_t output =
      (block.image * weight_.groups + block.group) * weight_.outputs + block.output;
  const int64_t end = block.position + block.positions;
  for (int64_t n = 0; n < block.outputs; n++) {
    float* image = out_ + (output + n) * rows * planes_.width;
    const float* from = sums + n * width - block.position;
    for (int64_t row = block.position / planes_.pitch; row * planes_.pitch < end; row++) {
      const int64_t start = row * planes_.pitch;
      const int64_t first = std::max(start, block.position);
      const int64_t last = std::min(start + planes_.width, end);
      if (last > first) finish(from + first, image + row * planes_.width + first - start, last - first);
    }
  }
}

void SparseFloatDriver::finish(const float* from, float* to, int64_t n) const {
  const float* residual = weight_.residual == nullptr ? nullptr : weight_.residual + (to - out_);
  kernels_.finish({from, residual, to, n, weight_.clamp_min, weight_.clamp_max});
}

}  // namespace fastinfer
