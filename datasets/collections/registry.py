"""From a collection's name in params.yaml to its adapter."""

import inspect
import os
from collections.abc import Mapping
from typing import Any

from reelmill.datasets import plugins, storage
from reelmill.datasets.collections.base import Collection
from reelmill.datasets.errors import ReelmillError, UsageError, one_line, suggest

BUILT_IN = {
    name: f"reelmill.datasets.collections.{name}:{cls}"
    for name, cls in {"folder": "Folder", "table": "Table", "ucf101": "Ucf101", "hmdb51": "Hmdb51"}.items()
}
"""The adapters that come with Reelmill, imported when they are asked for."""


def open_collection(name: str, root: str, options: Mapping[str, Any] | None = None) -> Collection:
    """The adapter called ``name``, for the collection at ``root``.

    Args:
        name: one of :data:`BUILT_IN`, or ``package.module:Class`` for one of the user's own. The class takes
            ``root`` and its options as keyword arguments; their annotations are what values are checked by.
        root: folder or URL that the videos lie below.
        options: values for the adapter's options, as params.yaml gives them.

    Raises:
        UsageError: no such adapter or root, an option that the adapter does not have, or a wrong value.
    """
    adapter = _load(name)
    known = {key: p for key, p in _parameters(name, adapter).items() if key != "root"}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
    known = {key: p for key, p in known.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    values = {}
    for key, value in (options or {}).items():
        if key in known:
            subject = f"collection {name!r}, option {key!r}"
            values[key] = plugins.validate_value(value, known[key].annotation, subject=subject)
        elif takes_any:
            values[key] = value
        else:
            raise UsageError(f"collection {name!r} has no option {key!r} ({value!r}){suggest(key, known)}")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in values:
            raise UsageError(f"collection {name!r} needs its option {key!r}")
    _check_root(root)
    try:
        collection = adapter(root=root, **values)
    except ReelmillError as error:
        raise UsageError(f"collection {name!r}: {error}") from error
    except ValueError as error:  # the way a user's own adapter refuses a value
        raise UsageError(f"collection {name!r}: {one_line(error)}") from error
    missing = [member for member in ("name", "labels", "entries") if not hasattr(collection, member)]
    if missing:
        raise UsageError(f"collection {name!r} is no adapter: it lacks {', '.join(missing)}")
    assert isinstance(collection, Collection)
    return collection


def _load(name: str) -> Any:
    if name not in BUILT_IN and ":" not in name:
        raise UsageError(
            f"unknown collection {name!r}{suggest(name, BUILT_IN)}, or package.module:Class for one of your own"
        )
    place = BUILT_IN.get(name, name)
    module, adapter = plugins.load_object(place, subject=f"collection {name!r}")
    if not inspect.isclass(adapter):
        class_name = place.partition(":")[2]
        classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
        raise UsageError(
            f"collection {name!r}: no class {class_name!r} in {module.__name__}{suggest(class_name, classes)}"
        )
    return adapter


def _parameters(name: str, adapter: Any) -> Mapping[str, inspect.Parameter]:
    try:
        parameters = inspect.signature(adapter, eval_str=True).parameters
    except NameError as error:
        raise UsageError(f"collection {name!r}: an annotation cannot be resolved: {error}") from error
    if "root" not in parameters and all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
        raise UsageError(f"collection {name!r} is no adapter: its class takes no argument 'root'")
    return parameters


def _check_root(root: str) -> None:
    if storage.is_url(root) or os.path.isdir(root):
        return
    if os.path.lexists(root):
        raise UsageError(
            f"the collection's root {root!r} is not a folder: name the folder that holds the videos"
        )
    raise UsageError(f"the collection's root {root!r} does not exist: name the folder that holds the videos")
