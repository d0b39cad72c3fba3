// What is no tensor op: the ISA in force and the layout of packed weights.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cpu/isa.h"
#include "engine/region_cache.h"
#include "packed.h"

namespace {

// What the plans at hand of a region's program use, last used first.
pybind11::list region_plans(const std::string& program) {
  pybind11::list found;
  for (const auto& plan : fastinfer::engine::RegionCache::instance().plans(program)) {
    pybind11::dict figures;
    figures["batch"] = plan->batch();
    figures["steps"] = plan->steps();
    figures["copied_bytes"] = plan->copied_bytes();
    figures["arena_bytes"] = plan->arena().bytes;
    figures["arena_lower_bound"] = plan->arena().lower_bound;
    found.append(figures);
  }
  return found;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "fastinfer's compiled CPU kernels";
  m.def("isa", [] { return fastinfer::isa_name(fastinfer::current_isa()); },
        "Name of the instruction set the kernels use.");
  m.def("set_isa", &fastinfer::set_isa, pybind11::arg("name"),
        "Use another instruction set this CPU has; ValueError otherwise.");
  m.def("supported_isas", &fastinfer::supported_isas,
        "Names of the instruction sets this CPU has, lowest first.");
  m.def("region_plans", &region_plans, pybind11::arg("program"),
        "Batch, steps, bytes copied by cats and slices, and arena bytes of a program's plans.");
  m.attr("PACKED_VERSION") = fastinfer::kPackedVersion;
  m.attr("PACKED_HEADER_SIZE") = sizeof(fastinfer::PackedHeader);
}
