#include "traits.h"

#include <algorithm>
#include <span>

namespace fastinfer::engine {
namespace {

// The list of integers that begins with its length at word `at`.
std::span<const int64_t> list_at(const Instruction& step, size_t at) {
  if (at >= step.words.size()) return {};
  const std::span<const int64_t> words(step.words);
  const auto count = static_cast<size_t>(std::max<int64_t>(0, words[at]));
  return words.subspan(at + 1, std::min(count, words.size() - at - 1));
}

bool names_batch(std::span<const int64_t> dims) {
  return std::find(dims.begin(), dims.end(), 0) != dims.end();
}

}  // namespace

Layout wanted_layout(const Instruction& step, size_t index) {
  if (reads_size(step, index)) return Layout::kAny;
  switch (step.kind) {
    case StepKind::kFloatBinary:
    case StepKind::kFloatMatmul:
    case StepKind::kFloatAttention:
    case StepKind::kPermute:
    case StepKind::kReshape:
    case StepKind::kRoll:
    case StepKind::kPad:
    case StepKind::kStridedSlice:
    case StepKind::kPixelShuffle:
    case StepKind::kJoin:
    case StepKind::kContiguous:
    case StepKind::kCopy:
      return Layout::kAny;
    case StepKind::kQuantize:
    case StepKind::kDequantize:
    case StepKind::kLookup:
    case StepKind::kFloatUnary:
      return Layout::kPacked;
    case StepKind::kFlatten:
    case StepKind::kInterleave:
      return Layout::kDense;
    case StepKind::kLayerNorm:
    case StepKind::kSoftmax:  // of an image's channels, or of its rows
      return !step.words.empty() && step.words[0] == 1 ? Layout::kPixels : Layout::kPlanes;
    case StepKind::kLinearDynamic:
      return Layout::kPlanes;
    default:
      return Layout::kPixels;
  }
}

bool reads_size(const Instruction& step, size_t index) {
  return index == 1 && (step.kind == StepKind::kUpsample2d ||
                        step.kind == StepKind::kFloatUpsample2d || step.kind == StepKind::kReshape);
}

bool mixes_samples(const Instruction& step, const std::vector<Value>& values, int64_t batch) {
  const auto rank = [&](int64_t value) { return values[static_cast<size_t>(value)].shape.size(); };
  switch (step.kind) {
    case StepKind::kPermute: {
      const auto dims = list_at(step, 0);
      return !dims.empty() && dims[0] != 0;
    }
    case StepKind::kReshape: {  // a number would be that of the whole batch; -2: the batch of another value
      const auto sizes = list_at(step, 0);
      return sizes.empty() || (sizes[0] != -1 && sizes[0] != -2);
    }
    case StepKind::kCat:
      return step.words.empty() || step.words[0] == 0 ||
             step.words[0] == -static_cast<int64_t>(rank(step.out));
    case StepKind::kRoll:
      return names_batch(list_at(step, list_at(step, 0).size() + 1));
    case StepKind::kPad:
      return list_at(step, 0).size() / 2 >= rank(step.reads[0]);
    case StepKind::kStridedSlice:
    case StepKind::kJoin:
      return !step.words.empty() && step.words[0] == 0;
    case StepKind::kFloatReduce:
      return names_batch(list_at(step, 1));
    case StepKind::kFloatAttention: {  // a constant mask's samples, behind scale, is_causal and the buffer
      const auto mask = list_at(step, 3);
      const auto samples = [&](int64_t value) { return values[static_cast<size_t>(value)].shape[0]; };
      // A mask that is a value and has fewer samples repeats over those of other parts of the batch.
      if (step.reads.size() > 3 && samples(step.reads[3]) != samples(step.out)) return true;
      const int64_t each = samples(step.out) / batch;
      return !mask.empty() && (mask[0] == 0 || each % mask[0] != 0);
    }
    case StepKind::kLinear:
    case StepKind::kLinearDynamic:
      return rank(step.out) < 2;
    case StepKind::kFloatMatmul:
      return rank(step.out) < 3;
    case StepKind::kFloatBinary: {
      for (const int64_t value : step.reads) {
        if (rank(value) != rank(step.out)) return true;
      }
      const auto constant = list_at(step, 2);  // behind the function and the buffer
      return constant.size() == rank(step.out) && !constant.empty() && constant[0] != 1;
    }
    default:
      return false;
  }
}

}  // namespace fastinfer::engine
