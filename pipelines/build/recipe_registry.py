"""The columns that can be built, by the section of params.yaml that describes them.

A kind of column is a :class:`reelmill.features.recipe.Recipe`. Those of :data:`COLUMNS` are one column each, built
by the command of their name; ``features`` and ``columns`` hold any number of columns by name, the latter of
kinds that are the user's own.
"""

import re
from collections.abc import Mapping
from typing import Any

from reelmill.datasets import plugins, storage
from reelmill.datasets.errors import UsageError
from reelmill.features.recipe import Recipe
from reelmill.pipelines.params import section

COLUMNS = {
    "frames": "reelmill.features.frames.recipe:FramesRecipe",
    "flow": "reelmill.features.flow.recipe:FlowRecipe",
    "motion": "reelmill.features.motion.recipe:MotionRecipe",
    "audio": "reelmill.features.audio.recipe:AudioRecipe",
}
"""Recipe of each section that describes one column, which has the section's name."""
FEATURES = "reelmill.features.cnn.recipe:CnnRecipe"
"""Recipe of every entry of the section ``features``."""
NAMED = ("features", "columns")
"""Sections of columns by name."""
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
"""What a column may be called ..."""
TAKEN = (*COLUMNS, "pooled")
"""... but for these: folders of a dataset that are something else."""


def recipe_class(place: str) -> type[Recipe]:
    """The recipe at ``module:callable``; the working directory is looked through as well.

    Raises:
        UsageError: it is not there, or is no recipe.
    """
    module, found = plugins.find(place, subject=f"column {place!r}")
    if not (isinstance(found, type) and issubclass(found, Recipe)):
        name = place.partition(":")[2]
        raise UsageError(f"column {place!r}: {module.__name__} has no Recipe of the name {name!r}")
    return found


def column_recipe(
    params: Mapping[str, Any], name: str, *, within: str | None = None, overrides: Mapping[str, Any], raw: str
) -> Recipe:
    """The recipe of one column as params.yaml describes it.

    Args:
        params: content of params.yaml.
        name: of the column.
        within: the section that holds it by name, one of :data:`NAMED`; None: it has a section of its own.
        overrides: values of options that go before those of params.yaml.
        raw: folder or URL of the collection.

    Raises:
        UsageError: there is no such entry, or it has unknown keys or wrong values.
    """
    if within is None:
        recipe = recipe_class(COLUMNS[name])
        options = section(params, recipe.Options, name=name, overrides=overrides)
    else:
        entries = entries_of(params, within)
        if name not in entries:
            there = ", ".join(entries) or "none"
            raise UsageError(f"params.yaml has no column {name!r} in its section {within}; there is {there}")
        content = dict(entries[name] or {})
        place = FEATURES if within == "features" else content.pop("make", None)
        if not isinstance(place, str) or ":" not in place:
            raise UsageError(f"{within}.{name}.make = {place!r}: name a recipe as module:callable")
        recipe = recipe_class(place)
        options = section(
            {f"{within}.{name}": content}, recipe.Options, name=f"{within}.{name}", overrides=overrides
        )
    made = recipe(name=name, options=options, raw=raw)
    if not made.reads and not storage.is_url(raw) and not storage.exists(raw):
        raise UsageError(f"scan.raw = {raw!r}: there is no such folder")
    return made


def entries_of(params: Mapping[str, Any], within: str) -> dict[str, Any]:
    """A section of columns by name. Raises UsageError where it is none, or a name cannot be a folder's."""
    content = params.get(within) or {}
    if not isinstance(content, dict):
        raise UsageError(f"{within} must be a section of columns by name, not {content!r}")
    for name, entry in content.items():
        if not isinstance(name, str) or not NAME.fullmatch(name) or name in TAKEN:
            raise UsageError(
                f"{within}: {name!r} cannot name a column: letters, digits, _ and -, beginning with a letter, "
                f"and none of {', '.join(TAKEN)}"
            )
        if entry is not None and not isinstance(entry, dict):
            raise UsageError(f"{within}.{name} must be a section of keys, not {entry!r}")
    return content
