"""A trained model on disk: ``model.keras``, and ``model.json`` with what its input must look like."""

import io
import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import keras

from reelmill.datasets import storage
from reelmill.datasets.errors import DatasetError, UsageError
from reelmill.train import models

MODEL, DESCRIPTION = "model.keras", "model.json"
DIGITS = 6
"""Decimals of a metric; more would differ between processors."""
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """Content of ``model.json``."""

    model: str
    """Name of the model, or ``module:callable``."""
    columns: list[str]
    """Columns that it reads, in this order."""
    class_names: list[str]
    """What each output stands for."""
    clip_frames: int
    """Frames of a clip."""
    stride: int
    """Distance between them, in stored frames."""
    crop: int | None
    """Side of the crop in pixels; None: whole frames."""
    labels: Literal["single", "multi"] = "single"
    """``single``: a clip has one label, and its probabilities sum to 1; ``multi``: any number of labels."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments that the model was built with."""


def save(model: Any, info: ModelInfo, folder: str) -> None:
    """Write both files; equal models give equal bytes."""
    with TemporaryDirectory() as temporary:
        path = Path(temporary, MODEL)
        model.save(path)
        content = _reproducible(path)
    storage.write_bytes(storage.join(folder, MODEL), content)
    storage.write_bytes(storage.join(folder, DESCRIPTION), to_json(asdict(info)))


def load(folder: str) -> tuple[Any, ModelInfo]:
    """The model and its description.

    Raises:
        UsageError: there is no model.
        DatasetError: its files are damaged.
    """
    try:
        info = ModelInfo(**json.loads(storage.read_bytes(storage.join(folder, DESCRIPTION))))
        with storage.local_file(storage.join(folder, MODEL)) as path:
            models.find(
                info.model
            )  # a model of the user's own may have layers of its own: importing it makes them known
            return keras.models.load_model(path), info
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"no trained model in {folder!r}: run `reelmill train` first") from None
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise DatasetError(f"the model in {folder!r} cannot be loaded: {error}") from error


def to_json(content: dict[str, Any]) -> bytes:
    """JSON as every file of ours has it: equal content gives equal bytes."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _reproducible(path: Path) -> bytes:
    """The archive that Keras wrote, without the clock times and memory addresses in it."""
    cleaned = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(cleaned, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "metadata.json":
                content = json.dumps({"keras_version": json.loads(content)["keras_version"]}).encode()
            elif name == "config.json":
                content = json.dumps(_renumbered(json.loads(content), {})).encode()
            target.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), content)
    return cleaned.getvalue()


def _renumbered(config: Any, numbers: dict[int, int]) -> Any:
    """A model's configuration with its shared objects, known by their addresses, numbered from 0.

    >>> _renumbered([{"shared_object_id": 90210}, {"shared_object_id": 90210}], {})
    [{'shared_object_id': 0}, {'shared_object_id': 0}]
    """
    if isinstance(config, list):
        return [_renumbered(item, numbers) for item in config]
    if not isinstance(config, dict):
        return config
    return {
        key: numbers.setdefault(value, len(numbers))
        if key == "shared_object_id"
        else _renumbered(value, numbers)
        for key, value in config.items()
    }
