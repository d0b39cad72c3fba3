// What is no tensor op: the ISA in force and the layout of packed weights.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cpu/isa.h"
#include "packed.h"

PYBIND11_MODULE(_C, m) {
  m.doc() = "fastinfer's compiled CPU kernels";
  m.def("isa", [] { return fastinfer::isa_name(fastinfer::current_isa()); },
        "Name of the instruction set the kernels use.");
  m.def("set_isa", &fastinfer::set_isa, pybind11::arg("name"),
        "Use another instruction set this CPU has; ValueError otherwise.");
  m.def("supported_isas", &fastinfer::supported_isas,
        "Names of the instruction sets this CPU has, lowest first.");
  m.attr("PACKED_VERSION") = fastinfer::kPackedVersion;
  m.attr("PACKED_HEADER_SIZE") = sizeof(fastinfer::PackedHeader);
}
