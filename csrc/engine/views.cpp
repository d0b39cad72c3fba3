#include "views.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "../cpu/cache_lines.h"
#include "steps/cat.h"

namespace fastinfer::engine {
namespace {

// Whether a step that is no convolution works on values whose pixels lie apart.
bool works_apart(const Instruction& step) {
  switch (step.kind) {
    case StepKind::kMaxPool2d:
    case StepKind::kAvgPool2d:
    case StepKind::kAdaptiveAvgPool2d:
    case StepKind::kSlice:
    case StepKind::kChannelShuffle:
    case StepKind::kShuffledSlice:
      return true;
    case StepKind::kCat:
      return read_cat(step).dim == 1;
    default:
      return false;
  }
}

bool is_convolution(const Instruction& step) {
  return step.kind == StepKind::kConv2d || step.kind == StepKind::kDepthwiseConv2d;
}

// Whether a step can read its operand `index` where pixels lie apart. Residuals of convolutions share
// the result's step.
bool reads_apart(const Instruction& step, size_t index) {
  return is_convolution(step) ? index == 0 : works_apart(step);
}

bool has_residual(const Instruction& step) {
  return step.kind == StepKind::kConv2d && step.reads.size() > 1;
}

// Whether a step can write its result where pixels lie apart.
bool writes_apart(const Instruction& step) {
  return (is_convolution(step) && !has_residual(step)) || works_apart(step);
}

bool is_bytes_image(const Value& value) {
  return value.dtype == Dtype::kUint8 && value.shape.size() == 4;
}

int64_t channels_of(const Value& image) { return image.shape[1]; }

// Whether each value's pixels may lie apart, by the steps that make and read it; with `residuals` also those of
// convolutions with one, and of these: both or neither.
std::vector<bool> lie_apart(const std::vector<Instruction>& steps, const std::vector<Value>& values,
                            int64_t inputs, const std::vector<int64_t>& outputs, bool residuals) {
  std::vector<bool> can(values.size());
  for (const Instruction& step : steps) {
    const auto out = static_cast<size_t>(step.out);
    const bool writes = writes_apart(step) || (residuals && has_residual(step));
    can[out] = step.out >= inputs && is_bytes_image(values[out]) && writes;
  }
  for (const Instruction& step : steps) {
    for (size_t i = 0; i < step.reads.size(); i++) {
      const bool reads = reads_apart(step, i) || (residuals && has_residual(step));
      if (!reads) can[static_cast<size_t>(step.reads[i])] = false;
    }
  }
  // The caller's memory is dense.
  for (const int64_t output : outputs) can[static_cast<size_t>(output)] = false;
  // Along a chain of residuals.
  for (bool is_done = false; !is_done;) {
    is_done = true;
    for (const Instruction& step : steps) {
      if (!has_residual(step)) continue;
      const auto out = static_cast<size_t>(step.out), residual = static_cast<size_t>(step.reads[1]);
      if (can[out] == can[residual]) continue;
      can[out] = can[residual] = false;
      is_done = false;
    }
  }
  return can;
}

// Each value's link to what it is channels of, until no more can be linked.
class Links {
 public:
  Links(std::vector<Place> places, const std::vector<Instruction>& steps,
        const std::vector<Value>& values, int64_t inputs, const std::vector<int64_t>& outputs)
      : steps_(steps),
        values_(values),
        places_(std::move(places)),
        can_(lie_apart(steps, values, inputs, outputs, false)) {}

  std::vector<Place> places() {
    for (const Instruction& step : steps_) {
      if (step.kind != StepKind::kSlice || !can(step.out) || is_view(step.reads[0])) continue;
      link(step.out, step.reads[0], step.words[0]);
    }
    for (const Instruction* cat : cats()) {
      if (!lies_in_another(*cat)) take_parts(*cat);
    }
    std::vector<Place> found;
    for (size_t value = 0; value < places_.size(); value++) {
      found.push_back(root(static_cast<int64_t>(value)));
    }
    return found;
  }

 private:
  bool can(int64_t value) const { return can_[static_cast<size_t>(value)]; }
  Place& place(int64_t value) { return places_[static_cast<size_t>(value)]; }
  int64_t width(int64_t value) const { return channels_of(values_[static_cast<size_t>(value)]); }
  void link(int64_t value, int64_t owner, int64_t first) { place(value) = {owner, first}; }

  bool is_view(int64_t value) { return place(value).is_view; }

  Place root(int64_t value) {
    if (is_view(value)) return place(value);
    Place found{value, 0};
    for (Place next = place(value); next.owner != found.owner; next = place(found.owner)) {
      found = {next.owner, found.first + next.first};
    }
    return found;
  }

  // Cats of channels, the widest first, so that a growing chain of them (DenseNet) becomes parts of the
  // last; of equal ones the last first, which may hold the others.
  std::vector<const Instruction*> cats() const {
    std::vector<const Instruction*> found;
    for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
      if (step->kind != StepKind::kCat) continue;
      if (joins_channels(read_cat(*step), values_[static_cast<size_t>(step->out)])) {
        found.push_back(&*step);
      }
    }
    std::stable_sort(found.begin(), found.end(), [&](const auto* a, const auto* b) {
      return width(a->out) > width(b->out);
    });
    return found;
  }

  // A cat whose parts all lie beside each other in a wider image is channels of that.
  bool lies_in_another(const Instruction& cat) {
    if (!can(cat.out) || place(cat.out).owner != cat.out) return false;
    const Place whole = root(cat.reads[0]);
    const auto is_part_view = [&](int64_t part) { return is_view(part); };
    if (whole.owner == cat.out || std::any_of(cat.reads.begin(), cat.reads.end(), is_part_view)) {
      return false;
    }
    int64_t first = whole.first;
    const CatOperands operands = read_cat(cat);
    for (size_t i = 0; i < cat.reads.size(); i++) {
      const Place part = root(cat.reads[i]);
      if (!operands.parts[i].is_copy() || part.owner != whole.owner || part.first != first) {
        return false;
      }
      first += width(cat.reads[i]);
    }
    link(cat.out, whole.owner, whole.first);
    return true;
  }

  // Parts that lie nowhere else yet will be made in the cat's result.
  void take_parts(const Instruction& cat) {
    int64_t first = 0;
    const CatOperands operands = read_cat(cat);
    for (size_t i = 0; i < cat.reads.size(); i++) {
      const int64_t part = cat.reads[i];
      const bool is_free = place(part).owner == part && root(cat.out).owner != part;
      if (is_free && can(part) && operands.parts[i].is_copy()) link(part, cat.out, first);
      first += width(part);
    }
  }

  const std::vector<Instruction>& steps_;
  const std::vector<Value>& values_;
  std::vector<Place> places_;  // links
  std::vector<bool> can_;      // lie apart
};

using Range = std::pair<int64_t, int64_t>;

bool is_disjoint(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); i++) {
    if (ranges[i].first < ranges[i - 1].second) return false;
  }
  return true;
}

}  // namespace

std::vector<Instruction> with_shuffled_slices(std::vector<Instruction> steps,
                                              const std::vector<int64_t>& outputs) {
  std::vector<Instruction> kept;
  for (Instruction& shuffle : steps) {
    const auto reads_it = [&](const Instruction& step) {
      return std::find(step.reads.begin(), step.reads.end(), shuffle.out) != step.reads.end();
    };
    std::vector<Instruction*> slices;
    std::vector<Range> ranges;
    bool has_others = std::find(outputs.begin(), outputs.end(), shuffle.out) != outputs.end();
    if (shuffle.kind == StepKind::kChannelShuffle) {
      for (Instruction& step : steps) {
        if (!reads_it(step)) continue;
        has_others |= step.kind != StepKind::kSlice || step.words.size() != 2;
        slices.push_back(&step);
        if (!has_others) ranges.emplace_back(step.words[0], step.words[1]);
      }
    }
    // Slices that overlap would shuffle some channels twice.
    if (slices.empty() || has_others || !is_disjoint(std::move(ranges))) {
      kept.push_back(shuffle);
      continue;
    }
    for (Instruction* slice : slices) {
      slice->kind = StepKind::kShuffledSlice;
      slice->reads = shuffle.reads;
      slice->words.insert(slice->words.begin(), shuffle.words.begin(), shuffle.words.end());
    }
  }
  return kept;
}

std::vector<Place> own_places(size_t values) {
  std::vector<Place> places;
  for (size_t value = 0; value < values; value++) {
    places.push_back({static_cast<int64_t>(value), 0});
  }
  return places;
}

std::vector<Place> shared_places(std::vector<Place> places, const std::vector<Instruction>& steps,
                                 const std::vector<Value>& values, int64_t inputs,
                                 const std::vector<int64_t>& outputs) {
  return Links(std::move(places), steps, values, inputs, outputs).places();
}

void open_gaps(std::vector<Place>& places, const std::vector<Instruction>& steps,
               const std::vector<Value>& values, int64_t inputs,
               const std::vector<int64_t>& outputs) {
  const std::vector<bool> can = lie_apart(steps, values, inputs, outputs, true);
  for (size_t i = 0; i < values.size(); i++) {
    // What is channels of a wider image has that one's gaps.
    const bool is_owner = places[i].owner == static_cast<int64_t>(i);
    if (!can[i] || !is_owner || values[i].elements() == 0) continue;
    places[i].gap = apart(channels_of(values[i])) - channels_of(values[i]);
  }
}

std::vector<size_t> copied_parts(const Instruction& cat, const std::vector<Value>& values,
                                 const std::vector<Place>& places) {
  std::vector<size_t> copied;
  Place wanted = places[static_cast<size_t>(cat.out)];
  for (size_t i = 0; i < cat.reads.size(); i++) {
    const auto part = static_cast<size_t>(cat.reads[i]);
    const Place& place = places[part];
    if (place.owner != wanted.owner || place.first != wanted.first) copied.push_back(i);
    if (values[part].shape.size() == 4) wanted.first += channels_of(values[part]);
  }
  return copied;
}

int64_t copied_bytes(const Instruction& step, const std::vector<Value>& values,
                     const std::vector<Place>& places) {
  if (step.kind == StepKind::kSlice) {
    return is_view(step, values, places) ? 0 : values[static_cast<size_t>(step.out)].bytes();
  }
  int64_t bytes = 0;
  if (step.kind == StepKind::kCat) {
    for (const size_t part : copied_parts(step, values, places)) {
      bytes += values[static_cast<size_t>(step.reads[part])].bytes();
    }
  }
  return bytes;
}

bool is_view(const Instruction& step, const std::vector<Value>& values,
             const std::vector<Place>& places) {
  const Place& out = places[static_cast<size_t>(step.out)];
  if (out.is_view) return true;
  if (step.kind == StepKind::kCat) {
    return !step.reads.empty() && copied_parts(step, values, places).empty();
  }
  if (step.kind != StepKind::kSlice || out.owner == step.out) return false;
  const Place& from = places[static_cast<size_t>(step.reads[0])];
  return out.owner == from.owner && out.first == from.first + step.words[0];
}

}  // namespace fastinfer::engine
