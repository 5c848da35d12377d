"""What the runs of a project reached, from their metrics files: a table of them all."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reelmill.datasets import storage
from reelmill.datasets.errors import DatasetError, UsageError
from reelmill.pipelines.params import section
from reelmill.pipelines.project.runs import EvaluateSection, runs_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run that was trained and measured."""

    run: str
    model: str
    """Name of the model."""
    columns: list[str]
    """What it read."""
    metrics: Mapping[str, Any]
    """Content of its metrics file."""

    @property
    def by_class(self) -> Mapping[str, float]:
        """Accuracy of every class, or average precision where clips have several labels."""
        found: Mapping[str, float] = self.metrics.get("class_accuracy") or self.metrics["average_precision"]
        return found

    @property
    def mean_of_classes(self) -> float:
        """Mean accuracy of the classes, or mAP."""
        return float(self.metrics["map" if "map" in self.metrics else "mean_class_accuracy"])

    def group(self, prefix: str) -> float | None:
        """Mean over the classes whose names begin so; None where there are none.

        >>> metrics = {"class_accuracy": {"a_x": 0.5, "a_y": 1.0, "b": 0.0}}
        >>> Result(run="r", model="m", columns=["frames"], metrics=metrics).group("a_")
        0.75
        """
        found = [value for name, value in self.by_class.items() if name.startswith(prefix)]
        return sum(found) / len(found) if found else None


def read_result(run: str, *, metrics: str, model: str) -> Result:
    """What a run reached.

    Args:
        run: its name.
        metrics: path or URL of the file that ``reelmill evaluate`` wrote.
        model: folder that ``reelmill train`` wrote.

    Raises:
        UsageError: one of the files is not there.
        DatasetError: one is not what it should be.
    """
    about = _read_json(storage.join(model, "model.json"), f"reelmill train {run}")
    found = _read_json(metrics, f"reelmill evaluate {run}")
    try:
        result = Result(run=run, model=about["model"], columns=about["columns"], metrics=found)
        result.by_class, result.mean_of_classes, result.metrics["top1"]
    except KeyError as error:
        raise DatasetError(f"the metrics of run {run!r} lack {error}: reelmill evaluate {run}") from None
    return result


def _read_json(path: str, made_by: str) -> dict[str, Any]:
    try:
        content = json.loads(storage.read_bytes(path))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path} is not there: run `{made_by}` first") from None
    except ValueError as error:
        raise DatasetError(f"{path} is not valid JSON: {error}") from None
    assert isinstance(content, dict)
    return content


def markdown(results: Sequence[Result], *, groups: Sequence[str] = ()) -> str:
    """A table of runs in Markdown.

    Args:
        results: its rows.
        groups: beginnings of class names; the mean over the classes of each has a column of its own.

    >>> metrics = {"top1": 0.75, "mean_class_accuracy": 0.5, "class_accuracy": {"a_x": 1.0, "b": 0.0}}
    >>> print(markdown([Result(run="r", model="m", columns=["f", "g"], metrics=metrics)], groups=["a_"]))
    | run | model | columns | a | top-1 | mean of classes |
    |---|---|---|---:|---:|---:|
    | r | m | f, g | 100 % | 75 % | 50 % |
    """
    named = [prefix.rstrip("_-./ ") for prefix in groups]
    lines = [["run", "model", "columns", *named, "top-1", "mean of classes"]]
    for result in results:
        shares = [result.group(prefix) for prefix in groups]
        figures = [*shares, float(result.metrics["top1"]), result.mean_of_classes]
        texts = ["" if share is None else f"{share * 100:.0f} %" for share in figures]
        lines.append([result.run, result.model, ", ".join(result.columns), *texts])
    rule = "|" + "---|" * 3 + "---:|" * (len(groups) + 2)
    head, *rows = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([head, rule, *rows])


def results_of(
    params: Mapping[str, Any], *, root: str = "", overrides: Mapping[str, Any] | None = None
) -> list[Result]:
    """What every run of a project reached, in the order of params.yaml.

    Args:
        params: content of params.yaml.
        root: the project's folder; empty: this one.
        overrides: values that go before those of the section ``evaluate``.

    Raises:
        UsageError: a run was not trained or not measured yet.
        DatasetError: a file is not what it should be.
    """
    options = section(params, EvaluateSection, name="evaluate", overrides=overrides or {})
    return [
        read_result(
            run,
            metrics=os.path.join(root, options.metrics_file(run)),
            model=os.path.join(root, options.model_folder(run)),
        )
        for run in runs_of(params)
    ]
