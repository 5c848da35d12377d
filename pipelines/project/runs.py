"""The runs of a project: sections train, runs and evaluate of params.yaml."""

import re
from collections.abc import Mapping
from typing import Any

from reelmill.datasets.errors import UsageError
from reelmill.pipelines.params import Section, section
from reelmill.train.options import DEFAULT_RUN, EvaluateOptions, TrainOptions

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""What a run may be called: files are named by it."""


class TrainSection(Section, TrainOptions):
    """Section ``train`` of params.yaml."""


class EvaluateSection(Section, EvaluateOptions):
    """Section ``evaluate`` of params.yaml."""


def runs_of(params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What each entry of the section ``runs`` sets, by name; the one run ``frames`` where there is none.

    Raises:
        UsageError: the section or an entry is none, a name cannot be a file's, a key is unknown or a value wrong.
    """
    content = params.get("runs") or {DEFAULT_RUN: None}
    if not isinstance(content, dict):
        raise UsageError(f"runs must be a section of runs by name, not {content!r}")
    for name in content:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UsageError(f"runs: {name!r} cannot name a run: letters, digits, _ and - only")
        where = f"runs.{name}"
        section({where: content[name]}, TrainSection, name=where, overrides={})
    return {name: own or {} for name, own in content.items()}


def chosen_run(params: Mapping[str, Any], given: str | None, *, command: str) -> str:
    """The run that a command is for: the one it was given, or the only one there is. Raises UsageError."""
    runs = runs_of(params)
    if given is None and len(runs) == 1:
        return next(iter(runs))
    if given is None:
        raise UsageError(
            f"params.yaml has {len(runs)} runs: name one of {', '.join(runs)}, as `{command} {next(iter(runs))}`"
        )
    if given not in runs:
        raise UsageError(f"params.yaml has no run {given!r}; there is {', '.join(runs)}")
    return given


def run_options(params: Mapping[str, Any], run: str, overrides: Mapping[str, Any]) -> TrainSection:
    """Options of a run: the command line's before its own, and those before the section ``train``.

    Raises:
        UsageError: a key is unknown or a value wrong.
    """
    return section(params, TrainSection, name="train", overrides={**runs_of(params)[run], **overrides})
