"""Several replicas: the same global batches, the same training. Each process that needs devices is one of these.

python tests/train/fitting/test_strategies.py mirrored|worker|jax DATASET    prints JSON
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from reelmill.datasets.errors import UsageError
from reelmill.train import keras_setup, models
from reelmill.train.fitting.fit import fit
from reelmill.train.fitting.strategies import Replicas, open_replicas
from reelmill.train.loading.clip_sampling import Sampling
from reelmill.train.loading.loader import Loader
from reelmill.train.loading.order import Order, Share
from reelmill.train.options import TrainOptions

# Keras 3.15 with NumPy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS, BATCH = 24, 4
CUTS = sorted(np.random.default_rng(7).choice(np.arange(1, STEPS), 3, replace=False).tolist())
"""Steps at which the sequence of batches is interrupted."""


def mirrored(dataset: str) -> dict[str, Any]:
    """What needs four logical processors; and what there is to compare with, by one replica."""
    four = open_replicas(TrainOptions(strategy="mirrored", replicas=4))  # cuts the processor into so many
    two = open_replicas(TrainOptions(strategy="mirrored", replicas=2))
    found: dict[str, Any] = {"counts": [two.count, four.count]}
    found["uninterrupted"] = batches(Replicas(), dataset, 0, STEPS)
    parts = zip([0, *CUTS], [*CUTS, STEPS], [two, two, four, four], strict=True)
    found["interrupted"] = [
        b for begin, end, replicas in parts for b in batches(replicas, dataset, begin, end)
    ]

    models.build = plain
    found["alone"], seen, _ = trainings.train(dataset)
    found["alone_seen"] = grouped(seen, 1)
    killed(dataset, 10, checkpoint_steps=4)  # after step 8
    shutil.copytree("checkpoints", "interrupted/checkpoints")
    shutil.rmtree("checkpoints")

    killed(dataset, 10, checkpoint_steps=3, strategy="mirrored", replicas=2)
    seen = grouped(trainings.Recorder.seen, 2)[: trainings.step_reached()]
    found["reached"] = trainings.step_reached()
    found["changed"], rest, _ = trainings.train(dataset, strategy="mirrored", replicas=4)
    found["changed_seen"] = seen + grouped(rest, 4)

    models.build = trainings.build  # with statistics of each replica's own
    found["bit_equal"] = equal_when_killed(dataset)
    return found


def worker(dataset: str) -> dict[str, Any]:
    """One of two workers, which go on with what one replica began."""
    models.build = plain
    options = TrainOptions(**{**trainings.SETTINGS, "strategy": "multi_worker"})
    result = fit(dataset, options, run="a")
    seen = trainings.Recorder.seen
    return {"history": result.history, "seen": seen, "is_chief": result.is_chief}


def jax(dataset: str) -> dict[str, Any]:
    """The same on four devices of Keras on JAX, and from a step on, on two."""
    models.build = plain
    found: dict[str, Any] = {"devices": len(keras.distribution.list_devices())}
    killed(dataset, 18, checkpoint_steps=4, strategy="data_parallel")  # after step 16
    found["reached"] = trainings.step_reached()
    found["history"], _, _ = trainings.train(dataset, strategy="data_parallel", replicas=2)
    return found


def plain(name: str, *, inputs: Any, classes: int, labels: Any = None, arguments: Any = None) -> Any:
    """A model whose loss does not depend on how a batch is divided."""
    return trainings.network(inputs, classes, stateful=False)


def killed(dataset: str, step: int, **more: Any) -> None:
    """Train until a step."""
    with contextlib.suppress(trainings.Killed):
        trainings.train(dataset, callbacks=[trainings.At(step, trainings.kill)], **more)


def equal_when_killed(dataset: str) -> bool:
    """Whether a training that is killed in its second epoch ends with the same history and the same bytes."""
    more = {"strategy": "mirrored", "replicas": 2, "epochs": 2, "validation_split": None}
    history, _, content = trainings.train(dataset, **more)
    killed(dataset, 10, checkpoint_steps=4, **more)
    if trainings.step_reached() != 8:
        return False
    again, _, resumed = trainings.train(dataset, **more)
    return bool(history == again and content == resumed)


def grouped(parts: list[list[int]], replicas: int) -> list[list[int]]:
    """Clips of each step, of what the replicas noted in any order."""
    return [sorted(sum(parts[i : i + replicas], start=[])) for i in range(0, len(parts), replicas)]  # noqa: RUF017


def batches(replicas: Any, dataset: str, begin: int, end: int) -> list[list[str]]:
    """Clips of the global batches [begin, end), the replicas' parts put together."""

    def dataset_of(share: Any) -> Any:
        order = Order(batch_size=BATCH, training=True, seed=3, start_step=begin, share=share)
        sampling = Sampling(clip_frames=2, stride=1)
        return Loader(dataset, split="train", columns=["numbers"], sampling=sampling, order=order).dataset()

    found = []
    for batch, _ in zip(replicas.distribute(dataset_of), range(begin, end), strict=False):
        parts = [batch["clip_id"]] if replicas.count == 1 else batch["clip_id"].values
        assert [len(part) for part in parts] == [BATCH // replicas.count] * replicas.count
        found.append([clip.decode() for part in parts for clip in part.numpy()])
    return found


def start(what: str, dataset: str, folder: Path, **environment: str) -> "subprocess.Popen[str]":
    everything = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow",
        "PYTHONWARNINGS": "ignore",
        **environment,
    }
    return subprocess.Popen(
        [sys.executable, __file__, what, dataset],
        cwd=folder,
        env=everything,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def result(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err[-3000:]
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return {**found, "said": out.splitlines()[:-1]}


def ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return found


def close(history: list[dict[str, float]], expected: list[dict[str, float]]) -> bool:
    """Whether two histories agree but for rounding."""
    return len(history) == len(expected) and all(
        row == pytest.approx(other, abs=3e-6) for row, other in zip(history, expected, strict=True)
    )


def answers(numbered: str, folder: Path) -> dict[str, Any]:
    """What each of the processes found out; workers and JAX go on where one replica was interrupted."""
    first = {"mirrored": result(start("mirrored", numbered, folder))}
    for name in ("workers", "jax"):
        shutil.copytree(folder / "interrupted", folder / name)
    processes = {
        "jax": start(
            "jax",
            numbered,
            folder / "jax",
            KERAS_BACKEND="jax",
            XLA_FLAGS="--xla_force_host_platform_device_count=4",
        )
    }
    addresses = [f"127.0.0.1:{port}" for port in ports(2)]
    for number in (0, 1):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}}
        processes[f"worker {number}"] = start(
            "worker", numbered, folder / "workers", TF_CONFIG=json.dumps(task)
        )
    written = {name: result(process) for name, process in processes.items()}
    files = sorted(path.name for path in (folder / "workers").rglob("*") if path.is_file())
    return {**first, **written, "files": files}


def check_that_batches_go_on_with_more_replicas(found: dict[str, Any]) -> None:
    answer = found["mirrored"]
    assert answer["counts"] == [2, 4]
    assert len(set(CUTS)) == 3
    assert len(answer["uninterrupted"]) == STEPS
    assert answer["interrupted"] == answer["uninterrupted"]
    numbers = [sorted(int(clip.partition("-")[2]) for clip in batch) for batch in answer["uninterrupted"]]
    assert answer["alone_seen"] == numbers
    assert all(len(set(sum(numbers[i : i + 6], start=[]))) == 24 for i in range(0, STEPS, 6))  # noqa: RUF017


def check_that_replicas_may_change_in_the_middle_of_an_epoch(found: dict[str, Any]) -> None:
    answer = found["mirrored"]
    assert answer["reached"] == 9
    assert "resumed at epoch 2, step 3 of 6" in answer["said"]
    assert answer["changed_seen"] == answer["alone_seen"]
    assert close(answer["changed"], answer["alone"])  # of training, and of 13 clips that 4 replicas share


def check_that_what_replicas_have_of_their_own_is_resumed_to_the_bit(found: dict[str, Any]) -> None:
    assert found["mirrored"]["bit_equal"]


def check_that_two_workers_go_on_as_one_and_the_chief_writes(found: dict[str, Any]) -> None:
    chief, other = found["worker 0"], found["worker 1"]
    assert (chief["is_chief"], other["is_chief"]) == (True, False)
    assert chief["history"] == other["history"]
    assert close(chief["history"], found["mirrored"]["alone"])
    both = [sorted(pair) for pair in zip(chief["seen"], other["seen"], strict=True)]
    assert [sorted(a + b) for a, b in both] == found["mirrored"]["alone_seen"][8:]
    assert chief["said"][0] == "resumed at epoch 2, step 2 of 6"
    assert other["said"] == []
    assert found["files"].count("model.keras") == found["files"].count("a.csv") == 1
    assert "state.npz" not in found["files"]


def check_that_jax_goes_on_with_what_tensorflow_began(found: dict[str, Any]) -> None:
    answer = found["jax"]
    assert answer["devices"] == 4
    assert answer["said"][0] == "resumed at epoch 2, step 2 of 6"
    assert answer["reached"] == 16
    assert "resumed at epoch 3, step 4 of 6" in answer["said"]
    assert close(answer["history"], found["mirrored"]["alone"])


@pytest.mark.slow
def test_many_devices_train_as_one_does(numbered: str, tmp_path: Path) -> None:
    # half a minute: not once for each of these and each of pytest's workers
    found = answers(numbered, tmp_path)
    check_that_batches_go_on_with_more_replicas(found)
    check_that_replicas_may_change_in_the_middle_of_an_epoch(found)
    check_that_what_replicas_have_of_their_own_is_resumed_to_the_bit(found)
    check_that_two_workers_go_on_as_one_and_the_chief_writes(found)
    check_that_jax_goes_on_with_what_tensorflow_began(found)


@pytest.mark.parametrize(
    ("options", "config", "said"),
    [
        (
            {"strategy": "none", "replicas": 2},
            "",
            "replicas 2 with strategy 'none': set strategy to mirrored",
        ),
        (
            {"strategy": "mirrored", "replicas": 999},
            "",
            "replicas 999: this machine has the devices /device:CPU:0",
        ),
        (
            {"strategy": "multi_worker"},
            "",
            "strategy 'multi_worker' needs the environment variable TF_CONFIG",
        ),
        ({"strategy": "multi_worker"}, "{", "TF_CONFIG does not describe a cluster"),
        ({"strategy": "multi_worker"}, '{"cluster": [1]}', "TF_CONFIG does not describe a cluster"),
        ({"strategy": "multi_worker", "replicas": 2}, "", "set strategy to mirrored or data_parallel"),
    ],
)
def test_what_a_strategy_lacks_is_said(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], config: str, said: str
) -> None:
    monkeypatch.setenv("TF_CONFIG", config) if config else monkeypatch.delenv("TF_CONFIG", raising=False)
    tf.constant(0)  # or this process's processor would be cut
    with pytest.raises(UsageError) as caught:
        open_replicas(TrainOptions(**options))
    assert said in str(caught.value)


def test_jax_has_to_be_chosen_before_keras_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setenv("XLA_FLAGS", "")
    keras_setup.select_backend(TrainOptions())
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    with pytest.raises(
        UsageError, match="needs Keras on JAX, and Keras runs on tensorflow: set KERAS_BACKEND=jax"
    ):
        keras_setup.select_backend(TrainOptions(strategy="data_parallel"))


def test_a_batch_that_cannot_be_divided_names_one_that_can() -> None:
    with pytest.raises(UsageError, match=r"batch_size 6 .* divisible by 4 replicas: take 8"):
        Order(batch_size=6, share=Share(replicas=4))


if __name__ == "__main__":
    import test_resume as trainings  # type: ignore[import-not-found] # beside this file

    sys.stdout.write(
        json.dumps({"mirrored": mirrored, "worker": worker, "jax": jax}[sys.argv[1]](sys.argv[2]))
    )
