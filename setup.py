"""Builds fastinfer's extensions from explicit source lists and a table of flags per ISA."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
import torch
from setuptools import find_packages, setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

ROOT = Path(__file__).parent

# The stable ABI of torch 2.11: one build serves that release and later ones.
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020b000000000000"

# -fmacro-prefix-map: messages name source files, which are the builder's own place otherwise.
# -g0: Python's own flags ask for debug information, which would be of torch's headers above all:
# a third of the compiler's time, nine tenths of the library.
BASE_FLAGS = [
    "-std=c++20", "-O2", "-g0", "-Wall", "-Wextra", "-fvisibility=hidden", STABLE_ABI,
    f"-fmacro-prefix-map={ROOT.absolute()}/=",
]  # fmt: skip

# By gcc's generic tuning a structure of 150 bytes is cleared by `rep stos`, which takes some 40 ns,
# and once a panel: 2 % of MobileNetV2. Bits stay: what rounds is compiled with -ffp-contract=off.
FIELD_BY_FIELD = "-mtune=skylake-avx512"

SOURCES = [
    "csrc/registration.cpp",
    "csrc/bindings.cpp",
    "csrc/module_watch.cpp",
    "csrc/prepack.cpp",
    "csrc/cpu/packed_view.cpp",
    "csrc/cpu/read_once.cpp",
    "csrc/cpu/few_rows.cpp",
    "csrc/cpu/gemm_choice.cpp",
    "csrc/cpu/gemm_panel.cpp",
    "csrc/cpu/direct_conv.cpp",
    "csrc/cpu/dilated_conv.cpp",
    "csrc/cpu/winograd_conv.cpp",
    "csrc/cpu/packed_check.cpp",
    "csrc/cpu/pack_pairs.cpp",
    "csrc/cpu/pack_sparse.cpp",
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
    "csrc/cpu/sliding_depthwise.cpp",
    "csrc/cpu/int8_pointwise.cpp",
    "csrc/cpu/int8_pool.cpp",
    "csrc/cpu/upsample_driver.cpp",
    "csrc/cpu/int8_upsample.cpp",
    "csrc/cpu/float_rows.cpp",
    "csrc/cpu/float_planes.cpp",
    "csrc/cpu/sparse_float_driver.cpp",
    "csrc/cpu/sparse_float.cpp",
    "csrc/engine/arena.cpp",
    "csrc/engine/in_place.cpp",
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
    "csrc/engine/strided.cpp",
    "csrc/engine/traits.cpp",
    "csrc/engine/steps/float_rows.cpp",
    "csrc/engine/steps/float_elements.cpp",
    "csrc/engine/steps/float_sums.cpp",
    "csrc/engine/steps/float_pool.cpp",
    "csrc/engine/steps/rearrange.cpp",
    "csrc/cpu/float_sums.cpp",
]

# The choice among instruction sets, every unit of csrc/cpu/isa, and the flags each alone is built
# with. -fno-tree-pre -fno-gcse: gcc 12 otherwise spills the accumulators (24.0 -> 19.5 ms on
# ResNet-50). -ffp-contract=off: a fused multiply-add would round differently from the reference.
# -Wno-*uninitialized: gcc 12's own AVX-512 header warns.
MICROKERNEL_FLAGS = ["-fno-tree-pre", "-fno-gcse", "-ffp-contract=off"]
QUIET = ["-Wno-maybe-uninitialized", "-Wno-uninitialized"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", *QUIET]
VNNI = [*AVX512, "-mavx512vnni", "-mavx512vbmi"]
ISA_FLAGS = {
    "csrc/cpu/isa.cpp": [],
    "csrc/cpu/isa/scalar.cpp": MICROKERNEL_FLAGS,
    "csrc/cpu/isa/avx2.cpp": [*MICROKERNEL_FLAGS, "-mavx2", "-mfma"],
    "csrc/cpu/isa/avx512.cpp": [*MICROKERNEL_FLAGS, *AVX512],
    "csrc/cpu/isa/avx512vnni.cpp": [*MICROKERNEL_FLAGS, *VNNI],
    "csrc/cpu/isa/amx.cpp": [*MICROKERNEL_FLAGS, *VNNI, "-mamx-tile", "-mamx-int8"],
}

CUDA_SOURCES = [
    "csrc/prepack.cpp",
    "csrc/cuda/registration.cpp",
    "csrc/cuda/bindings.cpp",
    "csrc/cuda/choice.cpp",
    "csrc/cuda/gemm_config.cpp",
    "csrc/cuda/gemm_costs.cpp",
    "csrc/cuda/first_conv_choice.cpp",
    "csrc/cuda/conv_windows.cpp",
    "csrc/cuda/int8_conv2d.cpp",
    "csrc/cuda/int8_depthwise.cpp",
    "csrc/cuda/int8_linear.cpp",
    "csrc/cuda/float_rows.cpp",
    "csrc/cuda/int8_pointwise.cpp",
    "csrc/cuda/int8_pool.cpp",
    "csrc/cuda/int8_upsample.cpp",
    "csrc/cuda/pack_gathered.cpp",
    "csrc/cuda/pack_two_of_four.cpp",
    "csrc/cuda/packed_headers.cpp",
    "csrc/cuda/packed_sizes.cpp",
    "csrc/cuda/pool_choice.cpp",
    "csrc/cuda/prepack.cpp",
    "csrc/cuda/pure_bindings.cpp",
    "csrc/cuda/quantize.cpp",
    "csrc/cuda/quantize_dynamic.cpp",
    "csrc/cuda/tensors.cpp",
]

# Kernels, which include no torch header and so compile in seconds, and the architectures of each.
# 80 also embeds PTX, for GPUs that are newer than these.
CUDA_ARCHS = os.environ.get("FASTINFER_CUDA_ARCHS", "80 90a").split()
CUDA_UNITS = {
    "csrc/cuda/device.cu": CUDA_ARCHS,
    "csrc/cuda/float_rows_launch.cu": CUDA_ARCHS,
    "csrc/cuda/pointwise_launch.cu": CUDA_ARCHS,
    "csrc/cuda/pool_launch.cu": CUDA_ARCHS,
    "csrc/cuda/quantize_launch.cu": CUDA_ARCHS,
    "csrc/cuda/quantize_rows_launch.cu": CUDA_ARCHS,
    "csrc/cuda/upsample_launch.cu": CUDA_ARCHS,
    "csrc/cuda/int8_depthwise_launch.cu": CUDA_ARCHS,
    "csrc/cuda/int8_first_conv_launch.cu": CUDA_ARCHS,
    "csrc/cuda/int8_gemm_mma.cu": CUDA_ARCHS,
    "csrc/cuda/int8_gemm_wgmma.cu": ["90a"],
    "csrc/cuda/int8_sparse_mma.cu": CUDA_ARCHS,
    "csrc/cuda/int8_sparse_wgmma.cu": ["90a"],
    "csrc/cuda/int8_gather_wgmma.cu": ["90a"],
    "csrc/cuda/int8_patch_wgmma.cu": ["90a"],
}
NVCC_FLAGS = [
    "-std=c++20", "-O3", "--expt-relaxed-constexpr", "-Xcompiler", "-fPIC,-fvisibility=hidden",
]  # fmt: skip

# A build for tests/emulated: the AVX-512 units run on plain C++ in place of the intrinsics. Never
# installed; docs/decisions/0003-emulated-avx512.md says why. Only these units differ from what
# users have: ninja takes the other objects where they are up to date.
IS_EMULATED = os.environ.get("FASTINFER_EMULATED") == "1"
if IS_EMULATED:
    emulation = ROOT.absolute() / "tests" / "emulated"
    for unit in ("isa", "isa/avx512", "isa/avx512vnni", "isa/amx"):
        ISA_FLAGS[f"csrc/cpu/{unit}.cpp"] = [
            "-DFASTINFER_EMULATED_AVX512", f"-I{emulation}", "-Og",
        ]  # fmt: skip


class BuildWithUnits(BuildExtension):
    """BuildExtension that compiles the units of ISA_FLAGS and CUDA_UNITS itself."""

    def build_extensions(self) -> None:
        """Compile the units, each with its own flags, then build and link the extensions."""
        waiting = []
        for extension in self.extensions:
            if extension.name == "fastinfer._C":
                folder = "isa_emulated" if IS_EMULATED else "isa"
                waiting += self._units(extension, folder, self._isa_commands())
            else:
                waiting += self._units(extension, "cuda", self._cuda_commands())
        with ThreadPoolExecutor(int(os.environ["MAX_JOBS"])) as pool:
            # The last of the tables take longest.
            list(pool.map(self.spawn, reversed(waiting)))
        super().build_extensions()

    def _isa_commands(self) -> dict[str, list[str]]:
        from torch.utils.cpp_extension import get_cxx_compiler

        start = [get_cxx_compiler(), *BASE_FLAGS, "-fPIC"]
        return {source: [*start, *flags] for source, flags in ISA_FLAGS.items()}

    def _cuda_commands(self) -> dict[str, list[str]]:
        def targets(archs: list[str]) -> list[str]:
            flags = []
            for arch in archs:
                code = f"[sm_{arch},compute_{arch}]" if arch == "80" else f"sm_{arch}"
                flags.append(f"-gencode=arch=compute_{arch},code={code}")
            return flags

        start = [str(find_nvcc()), *NVCC_FLAGS]
        return {source: [*start, *targets(archs)] for source, archs in CUDA_UNITS.items()}

    def _units(
        self, extension: CppExtension, name: str, commands: dict[str, list[str]]
    ) -> list[list[str]]:
        """Return the commands that compile units, whose objects the extension is linked with."""
        folder = Path(self.build_temp).absolute() / name
        folder.mkdir(parents=True, exist_ok=True)
        waiting = []
        for source, command in commands.items():
            target = str(folder / (Path(source).stem + ".o"))
            waiting.append([*command, "-c", str(ROOT / source), "-o", target])
            extension.extra_objects.append(target)
        return waiting


def cpu_extension() -> CppExtension:
    """Return fastinfer._C: the CPU kernels, stable ABI, pybind11 for what is no tensor op."""
    return CppExtension(
        "fastinfer._C",
        SOURCES,
        # Before torch's own copy, which in torch 2.11 refuses a stable build.
        include_dirs=[pybind11.get_include()],
        extra_compile_args=[*BASE_FLAGS, "-ffp-contract=off", FIELD_BY_FIELD],
        depends=[str(p.relative_to(ROOT)) for p in ROOT.glob("csrc/**/*.h")],
    )


def find_nvcc() -> Path | None:
    """Return CUDA's compiler: of CUDA_HOME, or else on the PATH."""
    home = os.environ.get("CUDA_HOME")
    found = (shutil.which("nvcc", path=f"{home}/bin") if home else None) or shutil.which("nvcc")
    return Path(found) if found else None


def why_no_cuda() -> str | None:
    """Return what is missing for the CUDA kernels, or None."""
    for variable, value in (("FASTINFER_CUDA", "0"), ("FASTINFER_EMULATED", "1")):
        if os.environ.get(variable) == value:
            return f"{variable}={value}"
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if find_nvcc() is None:
        return "nvcc is not on the PATH or in CUDA_HOME"
    return None


def cuda_extension() -> CppExtension:
    """Return fastinfer._C_cuda: the CUDA kernels, the same stable ABI, CUDA's runtime linked in."""
    # nvcc on the PATH may be a link or a script; it knows itself where its libraries are.
    said = subprocess.run(
        [str(find_nvcc()), "--dryrun", "x.cu"], capture_output=True, text=True, check=False
    ).stderr
    folders = re.findall(r'"-L([^"]+)"', said)
    return CppExtension(
        "fastinfer._C_cuda",
        CUDA_SOURCES,
        include_dirs=[pybind11.get_include()],
        extra_compile_args=[*BASE_FLAGS, "-ffp-contract=off"],
        libraries=["torch_cuda", "cudart_static", "rt", "dl", "pthread"],
        library_dirs=folders,
        extra_link_args=["-Wl,--exclude-libs,ALL"],
        depends=[str(p.relative_to(ROOT)) for p in ROOT.glob("csrc/**/*.h")],
    )


def extensions() -> list[CppExtension]:
    """Return what can be built here; one line says why CUDA kernels cannot."""
    missing = why_no_cuda()
    if missing is None:
        return [cpu_extension(), cuda_extension()]
    print(f"fastinfer: CUDA kernels are not built: {missing}")
    return [cpu_extension()]


os.environ.setdefault("MAX_JOBS", str(os.cpu_count() or 1))
setup(
    packages=[*find_packages(include=["fastinfer", "fastinfer.*"]), "fastinfer.kernels"],
    package_dir={"fastinfer.kernels": "kernels"},
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildWithUnits},
)
