"""Loading of objects by name, and validation of arguments."""

import inspect
import sys
from pathlib import Path
from typing import Literal

import pytest

from reelmill.datasets import plugins
from reelmill.datasets.errors import UsageError


def test_an_object_is_loaded_with_its_module() -> None:
    module, loaded = plugins.load_object("collections:OrderedDict", subject="x")
    assert module.__name__ == "collections"
    assert loaded is module.OrderedDict


def test_a_missing_name_gives_none() -> None:
    assert plugins.load_object("collections:nothing_of_this_name", subject="x")[1] is None


def test_the_working_directory_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_beside_params.py").write_text("answer = 42\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    assert plugins.load_object("module_beside_params:answer", subject="x")[1] == 42


@pytest.mark.parametrize("place", ["no_such_module_at_all:x", ":x"])
def test_a_module_that_cannot_be_imported_is_named(place: str) -> None:
    module = place.partition(":")[0]
    with pytest.raises(UsageError, match=f"^column 'mine': cannot import {module!r}: "):
        plugins.load_object(place, subject="column 'mine'")


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (3, int, 3),
        (3, float, 3.0),
        (None, int | None, None),
        ([1, 2], tuple[int, int], (1, 2)),
        ("avg", Literal["avg", "max"], "avg"),
        ("anything", inspect.Parameter.empty, "anything"),
    ],
)
def test_values_are_converted_by_their_annotation(
    value: object, annotation: object, expected: object
) -> None:
    assert plugins.validate_value(value, annotation, subject="x") == expected


@pytest.mark.parametrize(
    ("value", "annotation"),
    [("3", int), (3.5, int), (1, bool), ([1, 2, 3], tuple[int, int]), ("x", Literal["a"])],
)
def test_values_of_another_type_give_a_one_line_error(value: object, annotation: object) -> None:
    with pytest.raises(UsageError) as error:
        plugins.validate_value(value, annotation, subject="argument size")
    assert str(error.value).startswith(f"argument size = {value!r}: ")
    assert "\n" not in str(error.value)
