"""The sections ``train`` and ``evaluate`` of params.yaml. Imports no TensorFlow: the command line reads it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from reelmill.datasets import storage

DEFAULT_RUN = "frames"
"""Name of the run of a project that names none."""

Count = Annotated[int, Field(ge=1)]
Labels = Literal["single", "multi"]
"""Whether every clip has exactly one label, or any number of labels."""


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class TrainOptions(_Options):
    """What ``reelmill train`` does: the section ``train``, and what an entry of ``runs`` sets otherwise."""

    columns: Annotated[list[str], Field(min_length=1)] = ["frames"]
    """Columns to learn from; the steps of the first are sampled, and the others follow its times"""
    model: str | None = None
    """Name of a model of train/models; null takes what suits the first column"""
    arguments: dict[str, Any] = {}
    """Arguments of the model, as {pooling: max}; its file in train/models names them"""
    labels: Labels = "single"
    """single: every clip has exactly one label; multi: any number, each learned as a yes or no of its own"""
    split: str = "train"
    """Split to learn from"""
    validation_split: str | None = "val"
    """Split to measure after every epoch; null: none"""
    epochs: Count = 16
    """Passes over the split"""
    batch_size: Count = 16
    """Clips in one batch, over all replicas"""
    clip_frames: Count = 8
    """Frames, or steps of the first column, taken of each clip"""
    stride: Count = 4
    """Distance from one taken frame to the next, in stored frames"""
    crop: Count | None = 224
    """Height and width of the crop in pixels; null: whole frames"""
    flip: bool = False
    """Mirror every other clip left to right; leave off where left and right are the label"""
    shuffle_shards: Count | None = None
    """Shuffle within windows of so many shards, read in one go, as object stores like it; null: over the whole split"""
    learning_rate: Annotated[float, Field(gt=0)] = 0.003
    """Step size of the optimizer Adam; with a schedule the largest"""
    schedule: Literal["constant", "cosine", "exponential", "step"] = "constant"
    """How the step size falls: constant, cosine (to 0), exponential (to 1 %), or step (to a tenth, at each third)"""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs in which the step size rises from 0, before the schedule begins"""
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    """What each class counts for: balanced (rare classes more), or a weight by class name, 1 for those not named"""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """What is computed with; mixed_float16 is for GPUs, mixed_bfloat16 for TPUs and newer GPUs and processors"""
    strategy: Literal["none", "mirrored", "multi_worker", "data_parallel"] = "none"
    """Replicas: none, mirrored (this machine's GPUs), multi_worker (TF_CONFIG), or data_parallel (Keras on JAX)"""
    replicas: Count | None = None
    """Devices of this machine to use with mirrored and data_parallel; null: all"""
    deterministic: bool = True
    """Whether a second run gives the same weights to the last bit, which costs speed"""
    checkpoint_steps: Count | None = None
    """Steps between checkpoints, which a stopped training goes on from; null: one at the end of each epoch"""
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    """Where order, crops and weights start from"""
    out: str = "model"
    """Folder that each run gets a folder in, for model.keras and model.json"""
    metrics: str = "metrics"
    """Folder for the metrics: train/RUN.json, and train/RUN.throughput.json, which differs from time to time"""
    plots: str = "plots"
    """Folder for every epoch's metrics: history/RUN.csv"""
    checkpoints: str = "checkpoints"
    """Folder for what an interrupted training goes on from: RUN, removed at the end"""
    tensorboard: str | None = "logs"
    """Folder for TensorBoard: RUN; null: none"""
    memory_mib: Count | None = None
    """Most memory that the loader's buffers may take, in MiB; null: as tf.data sees fit"""
    service: str | None = None
    """Address of a tf.data service that loads in this process's stead, as grpc://host:5050 (`reelmill serve`)"""

    def model_folder(self, run: str) -> str:
        """Where a run's model goes."""
        return storage.join(self.out, run)

    def checkpoint_folder(self, run: str) -> str:
        """Where an interrupted training's checkpoint is."""
        return storage.join(self.checkpoints, run)

    def tensorboard_folder(self, run: str) -> str | None:
        """Where TensorBoard's files go; None: nowhere."""
        return None if self.tensorboard is None else storage.join(self.tensorboard, run)

    def metrics_file(self, run: str) -> str:
        """Where the last epoch's metrics go."""
        return storage.join(self.metrics, "train", f"{run}.json")

    def throughput_file(self, run: str) -> str:
        """Where clips per second and seconds go."""
        return storage.join(self.metrics, "train", f"{run}.throughput.json")

    def history_file(self, run: str) -> str:
        """Where every epoch's metrics go."""
        return storage.join(self.plots, "history", f"{run}.csv")


class EvaluateOptions(_Options):
    """What ``reelmill evaluate`` does."""

    model: str = "model"
    """Folder that `reelmill train` wrote each run's model in"""
    split: str = "test"
    """Split to measure"""
    batch_size: Count = 16
    """Clips in one batch"""
    num_clips: Count = 1
    """Windows per clip, spread evenly in time; the probabilities of all views are averaged"""
    num_crops: Literal[1, 3, 5, 10] = 1
    """Crops of each window: 1 the centre, 3 along the longer side, 5 with corners, 10 those mirrored too"""
    metrics: str = "metrics"
    """Folder for the metrics: evaluate/RUN.json"""
    plots: str = "plots"
    """Folder for the predictions, confusion/RUN.csv, and their picture, confusion/RUN.png"""
    memory_mib: Count | None = None
    """Most memory that the loader's buffers may take, in MiB; null: as tf.data sees fit"""
    service: str | None = None
    """Address of a tf.data service that loads in this process's stead, as grpc://host:5050 (`reelmill serve`)"""

    def model_folder(self, run: str) -> str:
        """Where a run's model is."""
        return storage.join(self.model, run)

    def metrics_file(self, run: str) -> str:
        """Where the metrics go."""
        return storage.join(self.metrics, "evaluate", f"{run}.json")

    def predictions_file(self, run: str) -> str:
        """Where the table of predictions goes: clip_id, actual, predicted."""
        return storage.join(self.plots, "confusion", f"{run}.csv")

    def confusion_file(self, run: str) -> str:
        """Where the picture of the confusion matrix goes."""
        return storage.join(self.plots, "confusion", f"{run}.png")
