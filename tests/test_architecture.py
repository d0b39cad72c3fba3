"""Who may import whom, in Python and C++, read from the sources."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fastinfer"
LONGEST = 400

#: Layer -> what it may import besides itself. `_C` and `_C_cuda` are the compiled extensions.
EXTENSIONS = {"_C", "_C_cuda"}
BASE = {"types", "ops", "runtime", "nn", "engine", "program", "report", "config"}
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "ops": {"types"},
    "runtime": {"ops", "types", *EXTENSIONS},
    "nn": {"ops", "runtime", "types"},
    "engine": {"ops", "runtime", "types"},
    "program": {"types", "report"},
    # Its profile runs the model and reads what the engine recorded of its regions.
    "report": {"nn", "engine", "runtime", "types"},
    "config": {"types"},
    "graph": {"program", "report", "types"},
    "passes": {"graph", "program", "config", "report", "types"},
    "compress": {"graph", "program", "config", "report", "types"},
    "measure": {"types", "report"},
    # Folding a layer's integers is compress's knowledge; lower packs what it folds.
    "lower": {"nn", "engine", "graph", "program", "report", "compress", "types"},
    "tune": {"lower", "measure", "compress", "graph", *BASE},
    "testing": {"types", "ops"},
}
PIPELINE = {*BASE, "graph", "passes", "compress", "measure", "lower", "tune"}
ALLOWED["api"] = set(PIPELINE)
ALLOWED["root"] = {"api", "artifact", *PIPELINE}  # fastinfer/__init__.py
TOP = ("cli", "demo", "artifact", "export", "serve", "integrations")
# `import fastinfer` from above reads the public names.
for top in TOP:
    ALLOWED[top] = {"api", "root", *PIPELINE}
ALLOWED["artifact"] = {"api", *PIPELINE}  # has public names itself
ALLOWED["cli"] |= {"artifact", "demo"}

#: Files named after the layer they are part of.
PART_OF = {
    "report_text": "report",
    "report_plot": "report",
    "report_profile": "report",
    "report_profile_text": "report",
    "request": "api",
    "request_devices": "api",
    "paths": "api",
    "low_rank": "api",
    "allocation": "api",
    "cli_model": "cli",
    "__init__": "root",
}

#: Imports that break the table for a reason: (file, imported layer) -> reason.
EXCEPTIONS: dict[tuple[str, str], str] = {}

REQUIRED = {"torch", "numpy", "rich", "safetensors"}
#: Who may import what is no dependency of the package, inside functions only.
OPTIONAL_IN = {"demo", "export", "serve", "integrations"}
OPTIONAL_FILES = {"report_plot.py": {"matplotlib"}}


def layer_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return PART_OF.get(first, first)


def imported_names(tree: ast.AST):
    """Yield (module, node) of every import, also inside functions; relative ones are refused."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            if node.module == "fastinfer":
                for alias in node.names:
                    yield f"fastinfer.{alias.name}", node
            else:
                yield node.module, node


def target_layer(module: str) -> str:
    parts = module.split(".")
    if len(parts) == 1:
        return "root"
    name = parts[1]
    is_module = (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists() or name in EXTENSIONS
    return PART_OF.get(name, name) if is_module else "root"


def type_checking_nodes(tree: ast.AST) -> set[ast.AST]:
    """Return the nodes under `if TYPE_CHECKING:`, which no program runs."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            found.update(child for line in node.body for child in ast.walk(line))
    return found


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


SOURCES = python_files(PACKAGE)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_python_layers(path):
    layer = layer_of(path)
    assert layer in ALLOWED, f"{layer} has no row in ALLOWED"
    where = str(path.relative_to(PACKAGE))
    wrong = []
    for module, node in imported_names(ast.parse(path.read_text())):
        if module.split(".")[0] != "fastinfer":
            continue
        target = target_layer(module)
        if target not in {layer, *ALLOWED[layer]} and (where, target) not in EXCEPTIONS:
            wrong.append(f"line {node.lineno}: {layer} imports {module}")
    assert not wrong, wrong


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_packages_outside(path):
    tree = ast.parse(path.read_text())
    layer, lazy_only = layer_of(path), type_checking_nodes(tree)
    in_functions = {
        child
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for child in ast.walk(node)
    }
    for module, node in imported_names(tree):
        package = module.split(".")[0]
        if package in sys.stdlib_module_names or package in {"fastinfer", *REQUIRED}:
            continue
        assert package not in {"tests", "bench", "examples"}, f"line {node.lineno}: {module}"
        if node in lazy_only:
            continue
        known = layer in OPTIONAL_IN or package in OPTIONAL_FILES.get(path.name, ())
        assert known, f"line {node.lineno}: {layer} imports {module}"
        assert node in in_functions, f"line {node.lineno}: {module} must be imported lazily"


KERNELS = python_files(ROOT / "kernels")


@pytest.mark.parametrize("path", KERNELS, ids=lambda p: p.name)
def test_triton_kernels_import_torch_and_triton(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            packages = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            packages = {node.module.split(".")[0]}
        else:  # relative: of this folder
            continue
        wrong = packages - {"torch", "triton", *sys.stdlib_module_names}
        assert not wrong, f"line {node.lineno}: {wrong}"


def test_nothing_needs_the_triton_kernels():
    for path in SOURCES:
        if path.name == "kernels_package.py":  # finds them
            continue
        for module, node in imported_names(ast.parse(path.read_text())):
            is_kernels = module.split(".")[:2] == ["fastinfer", "kernels"]
            assert not is_kernels, f"{path.name}, line {node.lineno}: {module}"


def test_exceptions_are_used():
    found = set()
    for path in SOURCES:
        for module, _ in imported_names(ast.parse(path.read_text())):
            if module.split(".")[0] == "fastinfer":
                found.add((str(path.relative_to(PACKAGE)), target_layer(module)))
    assert set(EXCEPTIONS) <= found


def test_passes_and_compress_are_strangers():
    assert "compress" not in ALLOWED["passes"] and "passes" not in ALLOWED["compress"]


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)


def cpp_files(*folders: str) -> list[Path]:
    files: list[Path] = []
    for folder in folders:
        suffixes = (".h", ".cpp", ".cuh", ".cu")
        files += [p for p in (ROOT / folder).rglob("*") if p.suffix in suffixes]
    return sorted(files)


def reachable(path: Path) -> set[Path]:
    """Return the file and the project headers it includes, directly or not."""
    seen, waiting = set(), [path]
    while waiting:
        current = waiting.pop().resolve()
        if current in seen or not current.exists():
            continue
        seen.add(current)
        waiting += [current.parent / name for name in includes(current)]
    return seen


def test_kernels_include_no_torch():
    files = cpp_files("csrc/cpu/micro", "csrc/cpu/isa")
    assert files
    files += sorted((ROOT / "csrc" / "cpu").glob("po*_driver.*"))  # the engine calls these too
    for path in files:
        for part in reachable(path):
            wrong = [i for i in includes(part) if re.match(r"(torch|ATen|c10|pybind11)/", i)]
            assert not wrong, f"{path.name} reaches {wrong} through {part.name}"


def test_ops_include_no_intrinsics():
    files = sorted((ROOT / "csrc" / "cpu").glob("*.cpp"))
    assert files
    for path in files:
        for part in reachable(path):
            wrong = [i for i in includes(part) if i.endswith("intrin.h")]
            assert not wrong, f"{path.name} reaches {wrong} through {part.name}"


def test_cuda_kernels_include_no_torch():
    files = [p for p in cpp_files("csrc/cuda") if p.suffix in (".cuh", ".cu")]
    assert files
    for path in files:
        for part in reachable(path):
            wrong = [i for i in includes(part) if re.match(r"(torch|ATen|c10|pybind11)/", i)]
            assert not wrong, f"{path.name} reaches {wrong} through {part.name}"


def test_ptx_is_in_wrappers_only():
    found = [p.name for p in cpp_files("csrc/cuda") if re.search(r"\basm\b", p.read_text())]
    assert sorted(found) == ["mma.cuh", "mma_sparse.cuh"]


def test_cpu_and_cuda_are_strangers():
    for here, other in (("cpu", "cuda"), ("cuda", "cpu")):
        for path in cpp_files(f"csrc/{here}"):
            wrong = [i for i in includes(path) if f"{other}/" in i]
            assert not wrong, f"{path.name} includes {wrong}"


def test_files_are_short():
    folders = ("fastinfer", "csrc", "tests", "bench", "examples", "kernels")
    files = [ROOT / "setup.py", *cpp_files("csrc", "bench", "tests")]
    for folder in folders:
        files += python_files(ROOT / folder)
    lengths = {p: len(p.read_text().splitlines()) for p in files if p.exists()}
    long = {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n >= LONGEST}
    assert not long, long
