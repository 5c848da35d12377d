"""The rule of ARCHITECTURE.md about what may import what, and what workers must not import."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("datasets", "features", "pipelines", "train")
ALLOWED = {
    "datasets": {"datasets"},
    "features": {"features", "datasets"},
    "pipelines": {"pipelines", "features", "datasets"},
    "train": {"train", "datasets"},
}
FOR_FEATURES = {"manifest", "keys", "storage", "example", "vectors", "errors"}
"""Modules of datasets that features may use: the record types, the door to files, and the errors."""
HEAVY = {"tensorflow", "keras", "tensorflow_datasets", "sklearn", "matplotlib"}
LIGHT = ("options", "service")
"""Modules of train that a command may import at its top."""
MODULES = sorted(
    path.relative_to(ROOT)
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if "templates" not in path.parts
)


def name_of(path: Path) -> str:
    return ".".join(["reelmill", *path.with_suffix("").parts]).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, and whether it does so inside a function."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively: write the whole name"
            assert node.module is not None
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) in inside


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 40
    assert {path.parts[0] for path in MODULES} == set(FOLDERS)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_one_way(path: Path) -> None:
    folder = path.parts[0]
    for name, inside in imports(path):
        parts = name.split(".")
        assert parts[0] not in FOLDERS, f"{path} imports {name}: write reelmill.{name}"
        if parts[0] != "reelmill" or len(parts) < 2:
            continue
        if parts[1] in ALLOWED[folder]:
            if folder == "features" and parts[1] == "datasets":
                assert parts[2] in FOR_FEATURES, f"{path} imports {name}: features know record types only"
            continue
        command = path.parts[:2] == ("pipelines", "commands") and parts[1] == "train"
        assert command, f"{path} imports {name}, which points the wrong way"
        assert inside or parts[2] in LIGHT, f"{path} imports {name} at its top: that takes seconds"


@pytest.mark.parametrize("name", LIGHT)
def test_what_commands_import_at_their_top_is_light(name: str) -> None:
    top = {found.split(".")[0] for found, inside in imports(Path("train") / f"{name}.py") if not inside}
    assert not top & HEAVY


RUNS_MODELS = Path("features/cnn.py")
"""The one file outside of train/ that may import Keras: when it is called, in workers of the features stage."""


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[0] != "train" and p != RUNS_MODELS], ids=str)
def test_no_training_library_outside_train(path: Path) -> None:
    assert not {name.split(".")[0] for name, _ in imports(path)} & HEAVY


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[0] == "features"], ids=str)
def test_features_know_neither_beam_nor_dvc(path: Path) -> None:
    assert not {name.split(".")[0] for name, _ in imports(path)} & {"apache_beam", "dvc", "click"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_layout(folder: str) -> None:
    link = ROOT / "reelmill" / folder
    assert link.is_symlink()
    assert os.readlink(link) == f"../{folder}"
    assert not (ROOT / folder).is_symlink()
    assert not (ROOT / folder / "__init__.py").exists(), "it would shadow packages of that name at the top"
    for below in {path.parent for path in (ROOT / folder).glob("*/**/*.py") if "templates" not in path.parts}:
        assert (below / "__init__.py").exists(), below


def test_the_package_holds_nothing_else() -> None:
    found = {path.name for path in (ROOT / "reelmill").iterdir()} - {"__pycache__"}
    assert found == {"__init__.py", "py.typed", *FOLDERS}


def test_workers_do_not_import_tensorflow() -> None:
    """It costs seconds and half a gigabyte in each: all modules but those of train, and what they import."""
    names = [name_of(p) for p in MODULES if p.parts[0] != "train"]
    names = [n for n in names if not n.endswith((".__main__", ".commands.train", ".commands.evaluate"))]
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print(sorted({HEAVY!r} & {{name.split('.')[0] for name in sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("module", ["reelmill", "reelmill.datasets.column", "reelmill.datasets.verify"])
def test_reading_a_dataset_does_not_import_beam(module: str) -> None:
    code = f"import sys, {module}\nprint('apache_beam' in sys.modules, 'av' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_datasets_at_the_root_is_not_ours() -> None:
    """From the repository's root a plain `import datasets` finds the installed package, if there is one."""
    code = (
        "import importlib.util\n"
        "spec = importlib.util.find_spec('datasets')\n"
        "print(spec is None or spec.origin is None or 'site-packages' in spec.origin)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "True\n"
