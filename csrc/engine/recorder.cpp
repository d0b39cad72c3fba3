#include "recorder.h"

#include <optional>
#include <stdexcept>
#include <utility>

namespace fastinfer::engine {
namespace {

thread_local std::optional<std::vector<CallRecord>> records;

}  // namespace

bool is_recording() { return records.has_value(); }

void start_recording() {
  if (records) {
    throw std::logic_error(
        "start_recording: expected a thread that does not record, got one that does");
  }
  records.emplace();
}

std::vector<CallRecord> stop_recording() {
  std::vector<CallRecord> found;
  if (records) found = std::move(*records);
  records.reset();
  return found;
}

void add_record(CallRecord record) { records->push_back(std::move(record)); }

}  // namespace fastinfer::engine
