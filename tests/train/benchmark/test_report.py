"""What a host delivers against what is needed: the arithmetic and the words."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reelmill.train.benchmark.report import COMFORTABLE, Measured, Need, Supply

RATES = st.floats(0.1, 1e6)


def way(name: str, *rates: float, **more: object) -> Measured:
    """A way measured in turns of ten seconds."""
    made = Measured(**{"name": name, "costs": "", "reference": "now"} | more)  # type: ignore[arg-type]
    for rate in rates:
        made.add(clips=round(rate * 10), seconds=10, processor_seconds=15)
    return made


def supply(*others: Measured, need: float | None = None, now: float = 100) -> Supply:
    """Needs of ``need`` clips/s, as one replica of 10 clips has them."""
    wanted = None if need is None else Need(replicas=1, batch=10, step_ms=10_000 / need)
    base = way("now", now, now, reference=None, knob=False)
    return Supply([base, *others], cores=4, step_clips=10, need=wanted)


def test_need_is_replicas_times_clips_by_time() -> None:
    need = Need(replicas=8, batch=2, step_ms=50)
    assert need.clips_per_second == 320
    assert str(need) == "8 replicas x 2 clips / 50 ms = 320 clips/s"


@pytest.mark.parametrize(
    ("need", "words"),
    [
        (60, "enough: 1 replica x 10 clips / 166.667 ms = 60 clips/s are 60% of the 100"),
        (90, "just enough: "),
        (125, "short by 20%: "),
        (None, "this host delivers 100 clips/s: enough for steps of 10 clips that take 125 ms or longer"),
    ],
)
def test_verdict(need: float | None, words: str) -> None:
    assert supply(need=need).verdict().startswith(words)


def test_the_cheapest_knob_that_closes_the_gap_is_named() -> None:
    small, enough, more = way("small", 110, 110), way("enough", 160, 160), way("more", 300, 300)
    assert (
        "cheapest knob that closes the gap: enough (x1.60)" in supply(small, enough, more, need=150).verdict()
    )
    assert "closes the gap: more (x3.00)" in supply(more, enough, need=150).verdict()
    nothing = supply(small, enough, need=500).verdict()
    assert "no single knob closes the gap: enough gives most (x1.60)" in nothing


def test_what_is_no_knob_or_within_the_noise_is_not_advised() -> None:
    slow = way("one core", 200, 200, cores=1, knob=False)
    assert supply(slow, way("a little", 102, 102)).knobs() == []
    noisy = Supply(
        [way("now", 80, 120, reference=None, knob=False), way("better", 100, 150)], cores=1, step_clips=1
    )
    assert noisy.spread == pytest.approx(0.5)
    assert noisy.gain(noisy.ways["better"]) == pytest.approx(1.25)  # of each turn, whatever their drift
    assert noisy.knobs() == []


def test_a_knob_of_the_sample_counts_against_the_sample() -> None:
    sample, shorter = way("sample", 400, 400), way("shorter", 600, 600, reference="sample")
    found = supply(sample, shorter)
    assert found.gain(shorter) == pytest.approx(1.5)
    assert found.projected(shorter) == pytest.approx(150)


def test_cores_are_extrapolated_from_the_last_that_were_added() -> None:
    one, two = (way(f"{n}", rate, rate, cores=n, knob=False) for n, rate in ((1, 35), (2, 60)))
    found = supply(one, two, need=190)
    assert found.per_core() == pytest.approx({1: 35, 2: 60, 4: 100})
    assert found.cores_needed() == 4 + 5  # 20 clips/s for each: ceil(90 / 20)
    assert "9 cores like these would" in found.verdict()
    assert supply(one, two, need=50).cores_needed() == 4
    flat = way("2", 100, 100, cores=2, knob=False)
    assert supply(flat, need=190).cores_needed() is None
    assert supply(need=190).cores_needed() is None


def test_ways_without_a_turn_are_left_out() -> None:
    found = supply(way("begun", 120), way("never"))
    assert list(found.ways) == ["now", "begun"]
    assert found.gain(found.ways["begun"]) == pytest.approx(1.2)


@given(now=RATES, need=RATES, other=RATES)
def test_figures_and_words_agree(now: float, need: float, other: float) -> None:
    base = Measured(name="now", costs="", knob=False)
    base.add(clips=1, seconds=1 / now, processor_seconds=0)
    knob = Measured(name="other", costs="", reference="now")
    knob.add(clips=1, seconds=1 / other, processor_seconds=0)
    found = Supply([base, knob], cores=1, step_clips=1, need=Need(replicas=1, batch=1, step_ms=1000 / need))
    verdict = found.verdict()
    assert verdict.startswith("short by") == (found.need.clips_per_second > base.clips_per_second)  # type: ignore[union-attr]
    assert verdict.startswith("enough") == (
        found.need.clips_per_second / base.clips_per_second <= COMFORTABLE  # type: ignore[union-attr]
    )
    assert json.loads(json.dumps(found.to_json()))["verdict"] == verdict


def test_picture_has_a_bar_for_each_way_and_the_line() -> None:
    found = supply(way("better", 150, 150), way("worse", 50, 50), need=120)
    pixels = np.asarray(Image.open(io.BytesIO(found.picture())).convert("RGB")).astype(int)
    lengths = [
        int((np.abs(pixels - colour).sum(axis=2) < 12).sum(axis=1).max())
        for colour in ([0x22, 0x57, 0x7A], [0x57, 0xA7, 0x73], [0xB0, 0xB7, 0xBF])
    ]
    now, better, worse = lengths
    assert better / now == pytest.approx(1.5, rel=0.05)
    assert worse / now == pytest.approx(0.5, rel=0.05)
    red = np.abs(pixels - [0xC1, 0x12, 0x1F]).sum(axis=2) < 12
    assert red.sum(axis=0).max() > pixels.shape[0] / 3
