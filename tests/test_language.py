"""The names in the code."""

from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = ("datasets", "features", "pipelines", "train", "reelmill", "benchmarks")
"""Folders whose names are checked."""


def python_files(*folders: str) -> list[Path]:
    """Return the Python files of these folders, without those behind the package's symbolic links."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in paths if path.resolve() == path)


def plural_twins(names: list[str]) -> list[str]:
    """Return the names whose plural is a name, too."""
    return sorted(name for name in set(names) if f"{name}s" in names)


def test_no_two_modules_of_a_folder_differ_only_by_an_s() -> None:
    folders = groupby(python_files(*CODE), key=lambda path: path.parent)
    offenders = {
        str(folder.relative_to(ROOT)): twins
        for folder, paths in folders
        if (twins := plural_twins([path.stem for path in paths]))
    }
    assert not offenders
