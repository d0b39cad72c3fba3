// Calls of the engine with their right answers, from a file that case_files.py writes.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/region_cache.h"

namespace fastinfer::engine {

// Memory as a tensor's: on a cache line, not a byte longer than it must be.
class Bytes {
 public:
  explicit Bytes(int64_t size, uint8_t value = 0)
      : size_(size), data_(new (kAlign) uint8_t[static_cast<size_t>(size)]) {
    std::memset(data_, value, static_cast<size_t>(size));
  }
  Bytes(const Bytes& other) : Bytes(other.size_) {
    std::memcpy(data_, other.data_, static_cast<size_t>(size_));
  }
  Bytes(Bytes&& other) noexcept : size_(other.size_), data_(other.data_) { other.data_ = nullptr; }
  Bytes& operator=(const Bytes&) = delete;
  ~Bytes() { ::operator delete[](data_, kAlign); }

  uint8_t* data() const { return data_; }
  int64_t size() const { return size_; }
  bool operator==(const Bytes& other) const {
    return size_ == other.size_ &&
           std::memcmp(data_, other.data_, static_cast<size_t>(size_)) == 0;
  }

 private:
  static constexpr std::align_val_t kAlign{64};
  int64_t size_;
  uint8_t* data_;
};

struct Case {
  std::string label, program;
  Isa isa;
  std::vector<Bytes> weights;
  std::vector<Value> shapes;
  std::vector<Bytes> inputs, wanted;
};

class CaseFile {
 public:
  explicit CaseFile(const std::string& path) : in_(path, std::ios::binary) {
    if (!in_) throw std::runtime_error("cannot read " + path);
  }

  std::vector<Case> cases() {
    const auto isa = static_cast<Isa>(number());
    // Also asks the system for registers that a process has on request only.
    if (!cpu_supports(isa)) throw std::runtime_error("cases of an ISA that this CPU lacks");
    std::vector<Case> all;
    for (int64_t n = number(); n > 0; n--) {
      Case c;
      c.isa = isa;
      c.label = text();
      c.program = text();
      for (int64_t i = number(); i > 0; i--) c.weights.push_back(bytes());
      for (int64_t i = number(); i > 0; i--) {
        Value value;
        value.dtype = static_cast<Dtype>(number());
        value.is_planar = number() != 0;
        for (int64_t d = number(); d > 0; d--) value.shape.push_back(number());
        c.shapes.push_back(value);
        c.inputs.push_back(bytes());
      }
      for (int64_t i = number(); i > 0; i--) c.wanted.push_back(bytes());
      all.push_back(std::move(c));
    }
    return all;
  }

 private:
  int64_t number() {
    int64_t value = 0;
    read(&value, sizeof(value));
    return value;
  }
  Bytes bytes() {
    Bytes data(number());
    read(data.data(), data.size());
    return data;
  }
  std::string text() {
    const Bytes data = bytes();
    return {reinterpret_cast<const char*>(data.data()), static_cast<size_t>(data.size())};
  }
  void read(void* to, int64_t size) {
    if (!in_.read(static_cast<char*>(to), size)) throw std::runtime_error("the file ends early");
  }

  std::ifstream in_;
};

}  // namespace fastinfer::engine
