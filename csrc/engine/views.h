// Concatenation and split without copies: values that are channels of wider ones. Torch-free.
#pragma once

#include <vector>

#include "program.h"
#include "value.h"

namespace fastinfer::engine {

// Instructions with the slices of a shuffled image in the place of shuffle and slices, where nothing
// else reads the shuffled image.
std::vector<Instruction> with_shuffled_slices(std::vector<Instruction> steps,
                                              const std::vector<int64_t>& outputs);

// Every value in memory of its own.
std::vector<Place> own_places(size_t values);

// Where values lie best: parts of a cat inside its result, a slice inside what it is cut from, wherever
// the steps that make and read them can step over other channels. `values` have their shapes.
// places: every value's own, or as a view of another.
std::vector<Place> shared_places(std::vector<Place> places, const std::vector<Instruction>& steps,
                                 const std::vector<Value>& values, int64_t inputs,
                                 const std::vector<int64_t>& outputs);

// Sets the gaps of images whose pixels would share few cache sets, wherever the steps that make and
// read them and their channels can step over those.
void open_gaps(std::vector<Place>& places, const std::vector<Instruction>& steps,
               const std::vector<Value>& values, int64_t inputs,
               const std::vector<int64_t>& outputs);

// The parts of a cat that do not lie in its result, as indices of what it reads.
std::vector<size_t> copied_parts(const Instruction& cat, const std::vector<Value>& values,
                                 const std::vector<Place>& places);

// Bytes a cat or a slice copies, other steps none.
int64_t copied_bytes(const Instruction& step, const std::vector<Value>& values,
                     const std::vector<Place>& places);

// Whether a step has nothing to do: a cat or a slice whose result lies where it belongs.
bool is_view(const Instruction& step, const std::vector<Value>& values,
             const std::vector<Place>& places);

}  // namespace fastinfer::engine
