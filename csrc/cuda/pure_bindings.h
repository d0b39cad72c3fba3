// What tests and benchmarks ask of the pure functions behind a choice.
#pragma once

#include <pybind11/pybind11.h>

namespace fastinfer::cuda {

void bind_pure(pybind11::module_& m);

}  // namespace fastinfer::cuda
