"""``reelmill train``."""

import re
from collections.abc import Mapping
from typing import Any

import click

from reelmill.datasets import storage
from reelmill.datasets.errors import UsageError
from reelmill.datasets.manifest import FILE_NAME, Manifest
from reelmill.pipelines.commands.common import dataset_option, params_option, say
from reelmill.pipelines.params import (
    Section,
    dataset_path,
    given_options,
    parameter_options,
    read_params,
    section,
)
from reelmill.train.options import DEFAULT_RUN, TrainOptions

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""What a run may be called: files are named by it."""


class TrainSection(Section, TrainOptions):
    """Section ``train`` of params.yaml."""


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


@click.command("train")
@click.argument("run", required=False)
@params_option
@dataset_option
@parameter_options(TrainSection)
def command(run: str | None, params: str, dataset: str | None, **values: Any) -> None:
    """Train a model on columns of the dataset.

    RUN is an entry of the section runs of params.yaml; it may be left out where there is only one.
    """
    content = read_params(params)
    run = chosen_run(content, run, command="reelmill train")
    options = run_options(content, run, given_options(values, TrainSection))
    path = dataset_path(content, dataset)
    Manifest(storage.join(path, FILE_NAME)).close()  # a wrong path shows before TensorFlow takes its seconds

    from reelmill.train import backend
    from reelmill.train.quiet import quiet_import

    backend.choose(options)
    with quiet_import():
        from reelmill.train.fit import fit

    fitted = fit(path, options, run=run)
    if not fitted.chief:
        return
    last = fitted.history[-1]
    say(
        f"trained {fitted.model} on {', '.join(options.columns)} of {fitted.metrics['examples']} clips for "
        f"{options.epochs} epochs in {fitted.throughput['seconds']:.0f} s, "
        f"{fitted.throughput['clips_per_second']:.0f} clips/s: "
        + ", ".join(f"{name} {value:.3f}" for name, value in last.items())
    )
    say(
        f"model in {options.model_folder(run)}, metrics in {options.metrics_file(run)}, "
        f"history in {options.history_file(run)}"
    )
    say(fitted.input)
    say("next: reelmill evaluate" + (f" {run}" if len(runs_of(content)) > 1 else ""))
