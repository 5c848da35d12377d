"""What params.yaml names as ``module:name``, and the values that it gives for arguments: finding and checking them."""

import importlib
import inspect
import json
import os
import sys
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reelmill.datasets.errors import UsageError


def load_object(place: str, *, subject: str) -> tuple[ModuleType, Any]:
    """The module of ``module:name``, and what has that name in it, or None.

    Args:
        place: where it is; the working directory is looked through as well.
        subject: what errors begin with, as ``column 'mine'``.

    Raises:
        UsageError: the module cannot be imported.
    """
    module_name, _, name = place.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # a module of the user's own may lie beside params.yaml
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{subject}: cannot import {module_name!r}: {error}") from error
    return module, getattr(module, name, None)


def validate_value(value: Any, annotation: Any, *, subject: str) -> Any:
    """A value of params.yaml as the annotation of the argument that it is for has it.

    Args:
        value: as YAML gives it.
        annotation: of the parameter; ``inspect.Parameter.empty`` takes anything.
        subject: what errors begin with.

    Raises:
        UsageError: it is of another type, or out of bounds.
    """
    if annotation is inspect.Parameter.empty:
        return value
    try:
        # through JSON, because there a list stands for any sequence while all else stays strict
        return TypeAdapter(annotation).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        why = "; ".join(dict.fromkeys(e["msg"] for e in error.errors()))
        raise UsageError(f"{subject} = {value!r}: {why}") from None
