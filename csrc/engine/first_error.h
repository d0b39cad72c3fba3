// What went wrong first on any of a job's threads. Torch-free.
#pragma once

#include <exception>
#include <mutex>

namespace fastinfer::engine {

// A thread that cannot do its part (no memory for its scratch) says that it is done all the same, so
// that nobody waits for it; the caller throws in the end.
class FirstError {
 public:
  // In a catch block.
  void keep() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!error_) error_ = std::current_exception();
  }

  // When all threads are done. The caller's alone from here on: a late thread lets go of the job,
  // and with it of the error, while the caller still reads it.
  void rethrow() {
    std::exception_ptr error;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      error.swap(error_);
    }
    if (error) std::rethrow_exception(error);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace fastinfer::engine
