"""The rules that the package's source keeps; CONTRIBUTING.md names them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(importlib.util.find_spec("jitconv").origin).parent
SOURCES = {
    ".".join(("jitconv", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text()) for module, path in SOURCES.items()}

# A module may import what stands on its own step or below.
STEPS = (
    ("version",),
    ("kernels",),
    ("scalars", "validate", "limits", "threads", "shapes", "workspace", "records", "signatures"),
    ("problem", "cost", "packing", "kept", "ahead"),
    ("direct", "depthwise", "depthwise_planes", "planes", "planes_data", "planes_weights", "winograd", "pooling"),
    ("winograd_weights",),
    ("plan", "geometry"),
    ("conv", "pool", "columns", "pointwise", "relayout", "fused", "dense"),
    ("layers",),
    ("training", "torch", "onnx", "compat", "info"),
    ("dask",),
    ("cli",),
)
STEP_OF = {name: step for step, names in enumerate(STEPS) for name in names}
OPTIONAL = ("tqdm", "safetensors", "matplotlib", "mlxtend", "torch", "onnx", "dezero", "dask", "distributed", "mpi4py")
NUMBA_OPTIONS = {
    "nogil",
    "cache",
    "error_model",
    "fastmath",
    "inline",
    "boundscheck",
    "forceinline",
    "looplift",
}
COMPILERS = {"njit", "jit", "vectorize", "guvectorize", "generated_jit", "stencil", "cfunc", "CFunc"}


def imported(module):
    """Return the full names that a module imports, modules and the names taken from them."""
    package = module if SOURCES[module].name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def modules_imported(module):
    """Return the modules of this package that a module imports."""
    found = set()
    for name in imported(module):
        if name in SOURCES:
            found.add(name)
        elif name.rpartition(".")[0] in SOURCES:
            found.add(name.rpartition(".")[0])
    return found


def step_of(module):
    return STEP_OF[module.split(".")[1]]


INNER = [module for module in SOURCES if module not in ("jitconv", "jitconv.__main__")]
KERNELS = [module for module in SOURCES if module.startswith("jitconv.kernels")]


def test_every_module_has_its_step():
    assert {module.split(".")[1] for module in INNER} <= set(STEP_OF)


@pytest.mark.parametrize("module", INNER)
def test_imports_point_one_way(module):
    for other in modules_imported(module):
        assert other != "jitconv", f"{module} imports the package itself"
        assert step_of(other) <= step_of(module), f"{module} imports {other}"


def test_no_imports_in_a_circle():
    inner = {module: modules_imported(module) - {module} for module in INNER}
    while free := [module for module, others in inner.items() if not others & inner.keys()]:
        for module in free:
            del inner[module]
    # A package's __init__ and its modules may name each other; nothing else may.
    assert {module for module in inner if SOURCES[module].name != "__init__.py"} == set()


@pytest.mark.parametrize("module", KERNELS)
def test_kernels_stand_on_numpy_and_numba_alone(module):
    allowed = {"numpy", "numba", "llvmlite"} | sys.stdlib_module_names
    for name in imported(module):
        if name.startswith("jitconv"):
            assert name.startswith(("jitconv.kernels", "jitconv.version")), f"{module} imports {name}"
        else:
            assert name.split(".")[0] in allowed, f"{module} imports {name}"


def decorator_options(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (keyword.arg for keyword in node.keywords if keyword.arg)


@pytest.mark.parametrize("module", [module for module in SOURCES if module != "jitconv.kernels.jit"])
def test_one_door_to_numba(module):
    assert not NUMBA_OPTIONS & set(decorator_options(TREES[module]))
    assert not {name for name in imported(module) if name.startswith("numba") and name.split(".")[-1] in COMPILERS}
    used = {node.attr for node in ast.walk(TREES[module]) if isinstance(node, ast.Attribute)}
    assert not COMPILERS & used


@pytest.mark.parametrize("module", KERNELS)
def test_kernels_do_not_check(module):
    raised = [node.lineno for node in ast.walk(TREES[module]) if isinstance(node, (ast.Raise, ast.Assert))]
    assert not raised


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_is_one_idea(module):
    assert module.split(".")[-1] not in ("utils", "util", "helpers", "common", "misc")
    lines = SOURCES[module].read_text().count("\n")
    assert lines <= 450
    assert ast.get_docstring(TREES[module])


def test_public_functions_are_documented():
    import jitconv

    for name in jitconv.__all__:
        public = getattr(jitconv, name)
        if callable(public):
            assert public.__doc__, name


# But for what is imported when a user has the package that it stands on.
STAND_INS = [
    module
    for module in SOURCES
    if module.startswith("jitconv.compat.") and module.rpartition(".")[2] not in ("d2l_torch", "dezero_functions")
]


@pytest.mark.parametrize("module", STAND_INS)
def test_stand_ins_are_documented(module):
    made = importlib.import_module(module)
    for name in getattr(made, "__all__", ()):
        public = getattr(made, name)
        assert public.__doc__ or not callable(public), name


def test_importing_it_loads_no_extra():
    modules = ", ".join(["jitconv", *STAND_INS])
    code = f"import sys, {modules}; print([name for name in {OPTIONAL} if name in sys.modules])"
    child = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"
