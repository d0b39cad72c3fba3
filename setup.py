"""Builds fastinfer's extensions from explicit source lists and a table of flags per ISA."""

from __future__ import annotations

import os
from pathlib import Path

import pybind11
from setuptools import find_packages, setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

ROOT = Path(__file__).parent

# The stable ABI of torch 2.11: one build serves that release and later ones.
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020b000000000000"

# -fmacro-prefix-map: messages name source files, which are the builder's own place otherwise.
BASE_FLAGS = [
    "-std=c++20", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden", STABLE_ABI,
    f"-fmacro-prefix-map={ROOT.absolute()}/=",
]  # fmt: skip

SOURCES = [
    "csrc/registration.cpp",
    "csrc/bindings.cpp",
    "csrc/module_watch.cpp",
    "csrc/cpu/isa.cpp",
    "csrc/cpu/packed_view.cpp",
    "csrc/cpu/gemm_panel.cpp",
    "csrc/cpu/direct_conv.cpp",
    "csrc/cpu/packed_check.cpp",
    "csrc/cpu/pack_pairs.cpp",
    "csrc/cpu/prepack.cpp",
    "csrc/cpu/conv_geometry.cpp",
    "csrc/cpu/quantize.cpp",
    "csrc/cpu/int8_linear.cpp",
    "csrc/cpu/bound_regions.cpp",
    "csrc/cpu/int8_region.cpp",
    "csrc/cpu/int8_conv2d.cpp",
    "csrc/cpu/int8_depthwise.cpp",
    "csrc/cpu/pointwise_driver.cpp",
    "csrc/cpu/pool_driver.cpp",
    "csrc/cpu/depthwise_driver.cpp",
    "csrc/cpu/int8_pointwise.cpp",
    "csrc/cpu/int8_pool.cpp",
    "csrc/cpu/upsample_driver.cpp",
    "csrc/cpu/int8_upsample.cpp",
    "csrc/cpu/float_rows.cpp",
    "csrc/engine/arena.cpp",
    "csrc/engine/peak.cpp",
    "csrc/engine/plan.cpp",
    "csrc/engine/program.cpp",
    "csrc/engine/recorder.cpp",
    "csrc/engine/region_cache.cpp",
    "csrc/engine/batch.cpp",
    "csrc/engine/step.cpp",
    "csrc/engine/thread_pool.cpp",
    "csrc/engine/views.cpp",
    "csrc/engine/steps/between.cpp",
    "csrc/engine/steps/cat.cpp",
    "csrc/engine/steps/conv.cpp",
    "csrc/engine/steps/elements.cpp",
    "csrc/engine/steps/linear.cpp",
    "csrc/engine/steps/moves.cpp",
    "csrc/engine/steps/upsample.cpp",
    "csrc/engine/steps/float_rows.cpp",
]

# Every unit of csrc/cpu/isa and the flags it alone is built with. -fno-tree-pre -fno-gcse: gcc 12
# otherwise spills the accumulators (24.0 -> 19.5 ms on ResNet-50). -ffp-contract=off: a fused
# multiply-add would round differently from the reference. -Wno-*uninitialized: gcc 12's own
# AVX-512 header warns.
MICROKERNEL_FLAGS = ["-fno-tree-pre", "-fno-gcse", "-ffp-contract=off"]
QUIET = ["-Wno-maybe-uninitialized", "-Wno-uninitialized"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", *QUIET]
ISA_FLAGS = {
    "csrc/cpu/isa/scalar.cpp": MICROKERNEL_FLAGS,
    "csrc/cpu/isa/avx2.cpp": [*MICROKERNEL_FLAGS, "-mavx2", "-mfma"],
    "csrc/cpu/isa/avx512.cpp": [*MICROKERNEL_FLAGS, *AVX512],
    "csrc/cpu/isa/avx512vnni.cpp": [*MICROKERNEL_FLAGS, *AVX512, "-mavx512vnni", "-mavx512vbmi"],
}

# A build for tests/emulated: the AVX-512 units run on plain C++ in place of the intrinsics. Never
# installed; docs/decisions/0003-emulated-avx512.md says why.
if os.environ.get("FASTINFER_EMULATED") == "1":
    emulation = ROOT.absolute() / "tests" / "emulated"
    BASE_FLAGS += ["-DFASTINFER_EMULATED_AVX512", f"-I{emulation}", "-Og"]
    ISA_FLAGS["csrc/cpu/isa/avx512.cpp"] = ISA_FLAGS["csrc/cpu/isa/avx512vnni.cpp"] = []


class BuildWithIsaFlags(BuildExtension):
    """BuildExtension that gives each unit of ISA_FLAGS its own flags."""

    def build_extensions(self) -> None:
        """Build one static set of objects per flag set, then link them into the extension."""
        for extension in self.extensions:
            self._compile_isa_units(extension)
        super().build_extensions()

    def _compile_isa_units(self, extension: CppExtension) -> None:
        from torch.utils.cpp_extension import get_cxx_compiler

        folder = Path(self.build_temp).absolute() / "isa"
        folder.mkdir(parents=True, exist_ok=True)
        for source, flags in ISA_FLAGS.items():
            target = folder / (Path(source).stem + ".o")
            command = [
                get_cxx_compiler(), *BASE_FLAGS, "-fPIC", *flags, "-c", str(ROOT / source), "-o",
                str(target),
            ]  # fmt: skip
            self.spawn(command)
            extension.extra_objects.append(str(target))


def cpu_extension() -> CppExtension:
    """Return fastinfer._C: the CPU kernels, stable ABI, pybind11 for what is no tensor op."""
    return CppExtension(
        "fastinfer._C",
        SOURCES,
        # Before torch's own copy, which in torch 2.11 refuses a stable build.
        include_dirs=[pybind11.get_include()],
        extra_compile_args=[*BASE_FLAGS, "-ffp-contract=off"],
        depends=[str(p.relative_to(ROOT)) for p in ROOT.glob("csrc/**/*.h")],
    )


os.environ.setdefault("MAX_JOBS", str(os.cpu_count() or 1))
setup(
    packages=[*find_packages(include=["fastinfer", "fastinfer.*"]), "fastinfer.kernels"],
    package_dir={"fastinfer.kernels": "kernels"},
    ext_modules=[cpu_extension()],
    cmdclass={"build_ext": BuildWithIsaFlags},
)
