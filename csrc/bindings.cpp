// What is no tensor op: the ISA in force, the layout of packed weights, what the engine's calls cost.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <tuple>
#include <utility>

#include "cpu/bound_regions.h"
#include "cpu/conv_driver.h"
#include "cpu/few_rows.h"
#include "cpu/isa.h"
#include "engine/peak.h"
#include "engine/recorder.h"
#include "module_watch.h"
#include "packed.h"

namespace py = pybind11;

namespace {

using fastinfer::engine::CallRecord;

// As fastinfer/types/recorded.py reads it.
py::dict dict_of(const CallRecord& record) {
  const fastinfer::engine::Plan& plan = *record.plan;
  py::list weights, values, steps;
  for (const auto& weight : record.weights) {
    weights.append(py::make_tuple(reinterpret_cast<uintptr_t>(weight.data), weight.bytes));
  }
  for (const auto& value : plan.values()) {
    const bool is_float = value.dtype == fastinfer::engine::Dtype::kFloat;
    values.append(py::make_tuple(is_float ? "float32" : "uint8", py::tuple(py::cast(value.shape))));
  }
  for (size_t i = 0; i < plan.steps(); i++) {
    const auto& step = plan.instruction(i);
    steps.append(py::make_tuple(static_cast<int64_t>(step.kind), step.out,
                                py::tuple(py::cast(step.reads)), record.steps[i].seconds,
                                record.steps[i].kernel));
  }
  using namespace py::literals;
  return py::dict("program"_a = record.program, "weights"_a = weights, "values"_a = values,
                  "steps"_a = steps, "slices"_a = record.slices, "threads"_a = record.threads,
                  "seconds"_a = record.seconds, "copied_bytes"_a = plan.copied_bytes(),
                  "arena_bytes"_a = plan.arena().bytes,
                  "arena_lower_bound"_a = plan.arena().lower_bound);
}

py::list stop_recording() {
  py::list calls;
  for (const CallRecord& record : fastinfer::engine::stop_recording()) calls.append(dict_of(record));
  return calls;
}

double peak(int threads) {
  return fastinfer::engine::measure_peak(fastinfer::current_table(), threads);
}

using Pair = std::pair<int64_t, int64_t>;

// packed: the address of a weight of int8_conv2d. x: NHWC, as are its numbers.
std::string conv_way(uintptr_t packed, std::array<int64_t, 4> x, Pair stride, Pair padding,
                     Pair dilation) {
  const auto* const base = reinterpret_cast<const uint8_t*>(packed);
  const auto* const h = reinterpret_cast<const fastinfer::PackedHeader*>(base);
  fastinfer::ConvGeometry g{};
  g.batch = x[0];
  g.height = x[1];
  g.width = x[2];
  g.channels = x[3];
  g.pixel_step = g.channels;
  g.out_channels = h->n;
  g.kh = h->kh;
  g.kw = h->kw;
  std::tie(g.stride_h, g.stride_w) = stride;
  std::tie(g.pad_h, g.pad_w) = padding;
  std::tie(g.dilation_h, g.dilation_w) = dilation;
  if (!g.set_out_size()) return "none";
  const fastinfer::PackedView view{h, base, &fastinfer::current_table()};
  constexpr const char* kNames[] = {"winograd", "dilated", "direct", "windows"};
  return kNames[static_cast<int>(fastinfer::conv_way(view, g))];
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "fastinfer's compiled CPU kernels";
  m.def("isa", [] { return fastinfer::isa_name(fastinfer::current_isa()); },
        "Name of the instruction set the kernels use.");
  m.def("set_isa", &fastinfer::set_isa, py::arg("name"),
        "Use another instruction set this CPU has; ValueError otherwise.");
  m.def("supported_isas", &fastinfer::supported_isas,
        "Names of the instruction sets this CPU has, lowest first.");
  m.def("start_recording", &fastinfer::engine::start_recording,
        "Record this thread's calls of the engine; RuntimeError when it does already.");
  m.def("stop_recording", &stop_recording, "The calls since start_recording, as dicts.");
  m.def("peak_multiply_adds", &peak, py::arg("threads"),
        py::call_guard<py::gil_scoped_release>(),
        "int8 multiply-adds a second in registers, 0 where the instruction set has no loop.");
  py::class_<fastinfer::ModuleWatch>(m, "ModuleWatch", "Whether modules are as they were.")
      .def(py::init<py::tuple, py::tuple>(), py::arg("namespaces"), py::arg("slots"))
      .def("holds", &fastinfer::ModuleWatch::holds);
  m.def("few_rows_most",
        [](std::tuple<int64_t, double, double> tiles,
           std::tuple<int64_t, int64_t, int64_t, double, double> sparse) {
          return fastinfer::few_rows_most(std::make_from_tuple<fastinfer::TileWork>(tiles),
                                          std::make_from_tuple<fastinfer::SparseWork>(sparse));
        },
        py::arg("tiles"), py::arg("sparse"),
        "Rows up to which a linear layer's sparse image is faster than tiles; the fields of "
        "csrc/cpu/few_rows.h.");
  m.def("conv_way", &conv_way, py::arg("packed"), py::arg("x"), py::arg("stride"),
        py::arg("padding"), py::arg("dilation"),
        "By which of csrc/cpu/conv_driver.h's ways a convolution runs.");
  m.def("release_region", &fastinfer::release_region, py::arg("number"),
        "Let go of what int8_region_bind keeps under this number.");
  m.attr("PACKED_VERSION") = fastinfer::kPackedVersion;
  m.attr("PACKED_HEADER_SIZE") = sizeof(fastinfer::PackedHeader);
}
