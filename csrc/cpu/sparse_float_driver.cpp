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

}  // namespace

SparseFloatDriver::SparseFloatDriver(const KernelTable& table, const SparseFloatWeight& weight,
                                     const FloatPlanes& planes, float* out)
    : SparseFloatDriver(table, weight, out, planes.images, planes.positions) {
  planes_ = &planes;
}

SparseFloatDriver::SparseFloatDriver(const KernelTable& table, const SparseFloatWeight& weight,
                                     const float* rows, int64_t positions, float* out)
    : SparseFloatDriver(table, weight, out, 1, positions) {
  rows_ = rows;
}

SparseFloatDriver::SparseFloatDriver(const KernelTable& table, const SparseFloatWeight& weight,
                                     float* out, int64_t images, int64_t positions)
    : kernels_(table.sparse_float),
      weight_(weight),
      out_(out),
      images_(images),
      positions_(positions),
      vectors_(divide_up(positions, kernels_.lanes)),
      blocks_(divide_up(vectors_, kernels_.vectors)),
      parts_(divide_up(weight.outputs, kMaxOutputs)),
      finishes_(weight.residual != nullptr || weight.clamp_min > -kInfinity ||
                weight.clamp_max < kInfinity) {}

Work SparseFloatDriver::work() const {
  const int64_t positions = images_ * positions_;
  const int64_t moved = weight_.groups * (weight_.inputs + weight_.outputs) * positions;
  return {weight_.entries * positions + moved * kMoveWork,
          images_ * weight_.groups * blocks_ * weight_.outputs};
}

void SparseFloatDriver::split_for(int threads) {
  const int64_t others = images_ * weight_.groups * blocks_;
  // Few blocks leave threads without work, or one of them with twice as much as the next.
  if (threads > 1 && others * parts_ < 4 * threads && others * parts_ % threads != 0) {
    parts_ = std::min(weight_.outputs, divide_up(parts_, threads) * threads);
  }
}

void SparseFloatDriver::run_part(int thread, int threads) const {
  const int64_t outputs = divide_up(weight_.outputs, parts_);
  const int64_t width = int64_t{kernels_.vectors} * kernels_.lanes;
  // All inputs of rows, the inputs of one step of planes.
  const int64_t steps = planes_ == nullptr ? weight_.steps() : 1;
  const int64_t inputs = (steps - 1) * kSparseFloatInputs + kPlaces;
  struct Sparse;
  float* x = reinterpret_cast<float*>(
      scratch<Sparse>((inputs + outputs) * width * static_cast<int64_t>(sizeof(float))));
  const Range share = share_of(images_ * weight_.groups * blocks_ * parts_, thread, threads);
  int64_t taken = -1;
  for (int64_t i = share.begin; i < share.end; i++) {
    const int64_t part = i % parts_, block = i / parts_ % blocks_, image = i / parts_ / blocks_;
    // Blocks of nearly equal width: a narrow one costs almost as much as a wide one.
    const int64_t first = vectors_ * block / blocks_, last = vectors_ * (block + 1) / blocks_;
    const int64_t position = first * kernels_.lanes, output = part * outputs;
    const Block one{image / weight_.groups,
                    image % weight_.groups,
                    position,
                    std::min(last * kernels_.lanes, positions_) - position,
                    output,
                    std::min(outputs, weight_.outputs - output),
                    static_cast<int>(last - first)};
    if (one.outputs <= 0) continue;
    if (planes_ == nullptr && block != taken) take_rows(one, x);
    taken = block;
    run_block(one, x, x + inputs * width);
  }
}

void SparseFloatDriver::take_rows(const Block& block, float* x) const {
  const int64_t width = int64_t{block.vectors} * kernels_.lanes;
  transpose(rows_ + block.position * weight_.inputs, weight_.inputs, block.positions,
            weight_.inputs, x, width);
  if (block.positions == width) return;
  for (int64_t k = 0; k < weight_.inputs; k++) {  // what lies there may be slow to multiply
    std::fill(x + k * width + block.positions, x + (k + 1) * width, 0.0f);
  }
}

void SparseFloatDriver::run_block(const Block& block, float* x, float* sums) const {
  const int64_t width = int64_t{block.vectors} * kernels_.lanes;
  const int64_t first_output = block.group * weight_.outputs + block.output;
  const int64_t steps = weight_.steps();
  SparseFloatStep step{};
  step.x = x;
  step.values = weight_.values;
  step.places = weight_.places;
  step.entries = weight_.entries;
  step.rows = block.outputs;
  step.bias = weight_.bias == nullptr ? nullptr : weight_.bias + first_output;
  step.sums = sums;
  for (int64_t s = 0; s < steps; s++) {
    const int64_t input = s * kSparseFloatInputs;
    if (planes_ == nullptr) {
      step.x = x + input * width;
    } else {
      const float* base = planes_->base + block.image * planes_->image_step +
                          block.group * planes_->group_step + block.position;
      const int64_t inputs = std::min<int64_t>(kSparseFloatInputs, weight_.inputs - input);
      kernels_.gather({base, planes_->offsets.data() + input, static_cast<int>(inputs),
                       block.vectors, block.positions, x});
    }
    step.starts = weight_.starts + (block.group * steps + s) * weight_.outputs + block.output;
    step.begins = s == 0;
    kernels_.rows[block.vectors - 1](step);
  }
  if (planes_ == nullptr) {
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
  const int64_t rows = divide_up(positions_, planes_->pitch);
  const int64_t output =
      (block.image * weight_.groups + block.group) * weight_.outputs + block.output;
  const int64_t end = block.position + block.positions;
  for (int64_t n = 0; n < block.outputs; n++) {
    float* image = out_ + (output + n) * rows * planes_->width;
    const float* from = sums + n * width - block.position;
    for (int64_t row = block.position / planes_->pitch; row * planes_->pitch < end; row++) {
      const int64_t start = row * planes_->pitch;
      const int64_t first = std::max(start, block.position);
      const int64_t last = std::min(start + planes_->width, end);
      if (last > first) {
        finish(from + first, image + row * planes_->width + first - start, last - first);
      }
    }
  }
}

void SparseFloatDriver::finish(const float* from, float* to, int64_t n) const {
  const float* residual = weight_.residual == nullptr ? nullptr : weight_.residual + (to - out_);
  kernels_.finish({from, residual, to, n, weight_.clamp_min, weight_.clamp_max});
}

}  // namespace fastinfer
