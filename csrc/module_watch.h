// Whether the modules of a region are as they were: asked at every call, of as many as it has layers.
#pragma once

#include <pybind11/pybind11.h>

#include <utility>
#include <vector>

namespace fastinfer {

// namespaces: the __dict__ of each module. slots: tuples of a module's __dict__, a name, and the tensor
// that its buffer or parameter of this name is to be. Borrowed: the caller keeps both tuples.
class ModuleWatch {
 public:
  ModuleWatch(const pybind11::tuple& namespaces, const pybind11::tuple& slots);

  // Whether no module has a hook on its forward, and each slot its tensor.
  bool holds();

 private:
  // A dictionary and the number of its last change.
  using Stamp = std::pair<PyObject*, uint64_t>;

  bool looks_unchanged() const;
  void stamp();

  PyObject* const namespaces_;
  PyObject* const slots_;
  std::vector<Stamp> stamps_;
};

}  // namespace fastinfer
