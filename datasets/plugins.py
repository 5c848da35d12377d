"""Objects that params.yaml names as ``module:name``, and the arguments that it gives them."""

import importlib
import inspect
import json
import os
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reelmill.datasets.errors import UsageError, suggest


def load_object(path: str, *, subject: str) -> tuple[ModuleType, Any]:
    """Import the module of ``module:name``. Return it with its attribute of that name, or None without one.

    Args:
        path: ``module:name``. The working directory is searched as well.
        subject: beginning of error messages, as ``column 'mine'``.

    Raises:
        UsageError: the module cannot be imported.
    """
    module_name, _, name = path.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # a user's module may be next to params.yaml
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{subject}: cannot import {module_name!r}: {error}") from error
    return module, getattr(module, name, None)


def validate_arguments(
    parameters: Iterable[inspect.Parameter], values: Mapping[str, Any], *, noun: str
) -> dict[str, Any]:
    """Validate values of params.yaml for the parameters of a function. Return them converted.

    Args:
        parameters: the parameters that users may set.
        values: by name.
        noun: word for a parameter in error messages, as ``option``.

    Raises:
        UsageError: a value is unknown, missing, of another type, or out of bounds.
    """
    parameters = list(parameters)
    by_name = {p.name: p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    accepts_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name, value in values.items():
        if name not in by_name and not accepts_any:
            raise UsageError(f"there is no {noun} {name!r} ({value!r}){suggest(name, by_name)}")
    for name, parameter in by_name.items():
        if parameter.default is parameter.empty and name not in values:
            raise UsageError(f"{noun} {name!r} is missing")
    return {
        name: validate_value(value, by_name[name].annotation, subject=f"{noun} {name!r}")
        if name in by_name
        else value
        for name, value in values.items()
    }


def validate_value(value: Any, annotation: Any, *, subject: str) -> Any:
    """Validate a value of params.yaml by a type annotation. Return it converted.

    Args:
        value: the value as YAML gives it.
        annotation: its type; ``inspect.Parameter.empty`` accepts anything.
        subject: beginning of error messages.

    Raises:
        UsageError: it is of another type, or out of bounds.
    """
    if annotation is inspect.Parameter.empty:
        return value
    try:
        # As JSON, a list stands for any sequence, while all other types are strict.
        return TypeAdapter(annotation).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        reasons = "; ".join(dict.fromkeys(e["msg"] for e in error.errors()))
        raise UsageError(f"{subject} = {value!r}: {reasons}") from None
