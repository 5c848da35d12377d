"""The sections ``train`` and ``evaluate`` of params.yaml. Does not import TensorFlow, which is slow."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from reelmill.datasets import storage

DEFAULT_RUN = "frames"
"""Name of the run of a project without a section ``runs``."""

Count = Annotated[int, Field(ge=1)]
Labels = Literal["single", "multi"]
"""Whether every clip has exactly one label, or any number of labels."""


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class TrainOptions(_Options):
    """Options of ``reelmill train``: the section ``train``, overridden by an entry of ``runs``."""

    columns: Annotated[list[str], Field(min_length=1)] = ["frames"]
    """Columns to train on; steps are sampled from the first column, and the others are aligned to its timestamps"""
    model: str | None = None
    """Name of a model of train/models, or module:callable; null chooses one by the columns"""
    arguments: dict[str, Any] = {}
    """Arguments of the model, as {pooling: max}; docs/models.md lists them"""
    labels: Labels = "single"
    """single: exactly one label per clip; multi: any number, each an independent binary classification"""
    split: str = "train"
    """Split to train on"""
    validation_split: str | None = "val"
    """Split to validate on after every epoch; null: none"""
    epochs: Count = 16
    """Number of passes over the split"""
    batch_size: Count = 16
    """Clips in one batch, over all replicas"""
    clip_frames: Count = 8
    """Frames, or steps of the first column, per clip"""
    stride: Count = 4
    """Distance between these frames, in stored frames"""
    crop: Count | None = 224
    """Height and width of the crop in pixels; null: whole frames"""
    flip: bool = False
    """Mirror half of the clips left to right; not for labels that depend on left and right"""
    shuffle_shards: Count | None = None
    """For object stores: shuffle within windows of this many shards, read whole; null: shuffle the whole split"""
    learning_rate: Annotated[float, Field(gt=0)] = 0.003
    """Learning rate of the optimizer Adam; the largest one if a schedule is set"""
    schedule: Literal["constant", "cosine", "exponential", "step"] = "constant"
    """Decay of the learning rate: constant, cosine (to 0), exponential (to 1 %), or step (to a tenth at each third)"""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs in which the learning rate rises from 0, before the schedule begins"""
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    """Weight of each class in the loss: balanced (rare classes more), or weights by class name, 1 for all others"""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """Precision of computations: mixed_float16 for GPUs, mixed_bfloat16 for TPUs and recent GPUs and CPUs"""
    strategy: Literal["none", "mirrored", "multi_worker", "data_parallel"] = "none"
    """Distribution: none, mirrored (GPUs of this machine), multi_worker (TF_CONFIG), or data_parallel (Keras on JAX)"""
    replicas: Count | None = None
    """Number of devices for mirrored and data_parallel; null: all of this machine"""
    deterministic: bool = True
    """Whether repeated runs result in bit-identical weights, which is slower"""
    checkpoint_steps: Count | None = None
    """Steps between checkpoints, from which an interrupted training resumes; null: only at the end of each epoch"""
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    """Seed of the order of clips, of crops and of initial weights"""
    out: str = "model"
    """Folder for models: RUN/model.keras and RUN/model.json"""
    metrics: str = "metrics"
    """Folder for metrics: train/RUN.json, and train/RUN.throughput.json, which differs from run to run"""
    plots: str = "plots"
    """Folder for the metrics of every epoch: history/RUN.csv"""
    checkpoints: str = "checkpoints"
    """Folder for checkpoints: RUN, removed at the end of the training"""
    tensorboard: str | None = "logs"
    """Folder for the log files of TensorBoard: RUN; null: none"""
    memory_mib: Count | None = None
    """Maximum memory of the loader's buffers in MiB; null: chosen by tf.data"""
    service: str | None = None
    """Address of a tf.data service that loads instead of this process, as grpc://host:5050 (`reelmill serve`)"""

    def model_folder(self, run: str) -> str:
        """Return the folder of a run's model."""
        return storage.join(self.out, run)

    def checkpoint_folder(self, run: str) -> str:
        """Return the folder of a run's checkpoint."""
        return storage.join(self.checkpoints, run)

    def tensorboard_folder(self, run: str) -> str | None:
        """Return the folder of TensorBoard's files; None if none are written."""
        return None if self.tensorboard is None else storage.join(self.tensorboard, run)

    def metrics_file(self, run: str) -> str:
        """Return the path of the metrics of the last epoch."""
        return storage.join(self.metrics, "train", f"{run}.json")

    def throughput_file(self, run: str) -> str:
        """Return the path of throughput and duration."""
        return storage.join(self.metrics, "train", f"{run}.throughput.json")

    def history_file(self, run: str) -> str:
        """Return the path of the metrics of all epochs."""
        return storage.join(self.plots, "history", f"{run}.csv")


class EvaluateOptions(_Options):
    """Options of ``reelmill evaluate``: the section ``evaluate``."""

    model: str = "model"
    """Folder of the models that `reelmill train` wrote"""
    split: str = "test"
    """Split to evaluate"""
    batch_size: Count = 16
    """Clips in one batch"""
    num_clips: Count = 1
    """Windows per clip, evenly spaced in time; the probabilities of all views are averaged"""
    num_crops: Literal[1, 3, 5, 10] = 1
    """Crops per window: 1 (centre), 3 (along the longer side), 5 (centre and corners), 10 (those 5, also mirrored)"""
    metrics: str = "metrics"
    """Folder for metrics: evaluate/RUN.json"""
    plots: str = "plots"
    """Folder for predictions, confusion/RUN.csv, and the image of the confusion matrix, confusion/RUN.png"""
    memory_mib: Count | None = None
    """Maximum memory of the loader's buffers in MiB; null: chosen by tf.data"""
    service: str | None = None
    """Address of a tf.data service that loads instead of this process, as grpc://host:5050 (`reelmill serve`)"""

    def model_folder(self, run: str) -> str:
        """Return the folder of a run's model."""
        return storage.join(self.model, run)

    def metrics_file(self, run: str) -> str:
        """Return the path of the metrics."""
        return storage.join(self.metrics, "evaluate", f"{run}.json")

    def predictions_file(self, run: str) -> str:
        """Return the path of the table of predictions: clip_id, actual, predicted."""
        return storage.join(self.plots, "confusion", f"{run}.csv")

    def confusion_file(self, run: str) -> str:
        """Return the path of the image of the confusion matrix."""
        return storage.join(self.plots, "confusion", f"{run}.png")
