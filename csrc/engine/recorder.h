// What calls of the engine cost, step by step, while a thread asks for it. Torch-free.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "plan.h"

namespace fastinfer::engine {

struct CallRecord {
  std::string program;
  std::vector<Weight> weights;
  std::shared_ptr<const Plan> plan;  // of the whole batch
  int64_t slices;                    // in which it ran; 1 is the whole
  int threads;                       // at most
  double seconds;                    // of the call in the engine
  std::vector<StepTime> steps;       // where sliced: the mean over threads
};

// A thread's own calls are recorded from start_recording() to stop_recording(), so that callers on
// other threads neither pay for it nor show up in it. Off, a call pays one load.
bool is_recording();
// Throws std::logic_error where the thread records already.
void start_recording();
std::vector<CallRecord> stop_recording();
void add_record(CallRecord record);

}  // namespace fastinfer::engine
