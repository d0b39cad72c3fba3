#include "module_watch.h"

// Python counts the changes of a dictionary up to 3.11; later ones are asked for all they hold.
#define FASTINFER_HAS_DICT_VERSION (PY_VERSION_HEX < 0x030C0000)

namespace fastinfer {
namespace {

PyObject* item(PyObject* dict, const char* name) {
  PyObject* const found = PyDict_GetItemString(dict, name);
  return found != nullptr && PyDict_Check(found) ? found : nullptr;
}

bool is_empty(PyObject* dict) { return dict != nullptr && PyDict_Size(dict) == 0; }

bool has_hooks(PyObject* space) {
  return !is_empty(item(space, "_forward_hooks")) || !is_empty(item(space, "_forward_pre_hooks"));
}

bool is_in_place(PyObject* slot) {
  PyObject* const space = PyTuple_GetItem(slot, 0);
  for (const char* kind : {"_buffers", "_parameters"}) {
    PyObject* const tensors = item(space, kind);
    if (tensors == nullptr) return false;
    PyObject* const tensor = PyDict_GetItem(tensors, PyTuple_GetItem(slot, 1));
    if (tensor != nullptr) return tensor == PyTuple_GetItem(slot, 2);
  }
  return false;
}

}  // namespace

ModuleWatch::ModuleWatch(const pybind11::tuple& namespaces, const pybind11::tuple& slots)
    : namespaces_(namespaces.ptr()), slots_(slots.ptr()) {}

bool ModuleWatch::holds() {
  if (looks_unchanged()) return true;
  stamps_.clear();
  for (Py_ssize_t i = 0; i < PyTuple_Size(namespaces_); i++) {
    if (has_hooks(PyTuple_GetItem(namespaces_, i))) return false;
  }
  for (Py_ssize_t i = 0; i < PyTuple_Size(slots_); i++) {
    if (!is_in_place(PyTuple_GetItem(slots_, i))) return false;
  }
  stamp();
  return true;
}

#if FASTINFER_HAS_DICT_VERSION

bool ModuleWatch::looks_unchanged() const {
  if (stamps_.empty()) return false;
  // None is likely to be in a cache, and none waits for another.
  for (const auto& [dict, version] : stamps_) __builtin_prefetch(dict);
  for (const auto& [dict, version] : stamps_) {
    if (reinterpret_cast<PyDictObject*>(dict)->ma_version_tag != version) return false;
  }
  return true;
}

// A module's own dictionary keeps the others alive for as long as it is unchanged, which is looked at
// before them.
void ModuleWatch::stamp() {
  const auto add = [&](PyObject* dict) {
    stamps_.emplace_back(dict, reinterpret_cast<PyDictObject*>(dict)->ma_version_tag);
  };
  for (Py_ssize_t i = 0; i < PyTuple_Size(namespaces_); i++) {
    PyObject* const space = PyTuple_GetItem(namespaces_, i);
    add(space);
    add(item(space, "_forward_hooks"));
    add(item(space, "_forward_pre_hooks"));
  }
  for (Py_ssize_t i = 0; i < PyTuple_Size(slots_); i++) {
    PyObject* const space = PyTuple_GetItem(PyTuple_GetItem(slots_, i), 0);
    add(space);
    add(item(space, "_buffers"));
    add(item(space, "_parameters"));
  }
}

#else

bool ModuleWatch::looks_unchanged() const { return false; }

void ModuleWatch::stamp() {}

#endif

}  // namespace fastinfer
