"""What a host delivers held against what training needs: arithmetic, words and a picture. Imports no TensorFlow."""

import io
import math
import statistics
from dataclasses import dataclass, field
from typing import Any

COMFORTABLE = 0.8
"""Share of the clips/s delivered up to which steps wait less than 1 % (``benchmarks/input_wait.py``)."""
NOISE = 0.03
"""Gains below this are no gains, however quiet the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What the replicas take."""

    replicas: int
    """How many compute at the same time."""
    batch: int
    """Clips that each takes in one step."""
    step_ms: float
    """Milliseconds that a step takes when it does not wait for input."""

    @property
    def clips_per_second(self) -> float:
        """Over all replicas.

        >>> Need(replicas=8, batch=16, step_ms=250).clips_per_second
        512.0
        """
        return self.replicas * self.batch * 1000 / self.step_ms

    def __str__(self) -> str:
        each = f"{self.replicas} replica{'s' if self.replicas > 1 else ''} x {self.batch} clips"
        return f"{each} / {self.step_ms:g} ms = {self.clips_per_second:,.0f} clips/s"


@dataclass(slots=True, kw_only=True)
class Measured:
    """One way of loading, and what was measured of it so far."""

    name: str
    """What is done, as ``crop: 160``."""
    costs: str
    """What it costs, in words; empty for how it is now."""
    reference: str | None = None
    """Name of the way that it is compared with; None: it is compared with none."""
    cores: int | None = None
    """Cores that it was given; None: all."""
    knob: bool = True
    """Whether somebody short of clips would do it."""
    clips: int = 0
    """Clips loaded."""
    seconds: float = 0.0
    """Time that it took."""
    processor_seconds: float = 0.0
    """Time of processors that it took."""
    rates: list[float] = field(default_factory=list)
    """Clips per second of each turn."""

    def add(self, *, clips: int, seconds: float, processor_seconds: float) -> None:
        """Count a turn."""
        self.clips += clips
        self.seconds += seconds
        self.processor_seconds += processor_seconds
        self.rates.append(clips / seconds)

    @property
    def clips_per_second(self) -> float:
        """Over all turns."""
        return self.clips / self.seconds

    @property
    def busy_cores(self) -> float:
        """Processors that were at work on the average."""
        return self.processor_seconds / self.seconds


class Supply:
    """All that was measured of a dataset on a host.

    Args:
        ways: in the order of what they cost; the first is how it is now. Those that no turn was measured of,
            as after an interruption, are left out.
        cores: of the host.
        step_clips: clips of one step, over all replicas.
        need: what is to be delivered; None: only what is delivered is asked.
    """

    def __init__(
        self, ways: list[Measured], *, cores: int, step_clips: int, need: Need | None = None
    ) -> None:
        self.ways = {way.name: way for way in ways if way.rates}
        self.cores = cores
        self.step_clips = step_clips
        self.need = need

    @property
    def now(self) -> Measured:
        """The way that it is now."""
        return next(iter(self.ways.values()))

    @property
    def spread(self) -> float:
        """How far the turns of one and the same way lie apart: largest by smallest, less 1."""
        return max(self.now.rates) / min(self.now.rates) - 1

    def gain(self, way: Measured) -> float:
        """What a way delivers, over what the way that it is compared with delivers; 1 where there is none."""
        other = self.ways.get(way.reference or "")
        if other is None:
            return 1.0
        # turn by turn: what disturbs the machine disturbs neighbours alike
        return statistics.median(a / b for a, b in zip(way.rates, other.rates, strict=False))

    def projected(self, way: Measured) -> float:
        """Clips per second of the whole dataset that way: what is delivered now, times the gain."""
        return self.now.clips_per_second * self.gain(way)

    def knobs(self) -> list[Measured]:
        """The ways that give more than the measurement's own noise, cheapest first."""
        noise = max(NOISE, self.spread)
        return [way for way in self.ways.values() if way.knob and self.gain(way) > 1 + noise]

    def per_core(self) -> dict[int, float]:
        """Clips per second by the number of cores, fewest first, the host's own last."""
        found = {way.cores: self.projected(way) for way in self.ways.values() if way.cores is not None}
        return {**dict(sorted(found.items())), self.cores: self.now.clips_per_second}

    def cores_needed(self) -> int | None:
        """Cores like these that would deliver what is needed: extrapolated from the last cores added.

        None where nothing is needed, only one number of cores was measured, or more cores gave nothing.
        """
        measured = list(self.per_core().items())
        if self.need is None or len(measured) < 2:
            return None
        (fewer, low), (most, high) = measured[-2:]
        for_one = (high - low) / (most - fewer)
        if for_one <= NOISE * high / most:
            return None
        return most + max(0, math.ceil((self.need.clips_per_second - high) / for_one))

    def verdict(self) -> str:
        """One line: enough, just enough, or short by how much and what would help."""
        delivered = self.now.clips_per_second
        if self.need is None:
            comfortable_ms = self.step_clips / (COMFORTABLE * delivered) * 1000
            return (
                f"this host delivers {delivered:,.0f} clips/s: enough for steps of {self.step_clips} clips that "
                f"take {comfortable_ms:,.0f} ms or longer; --step-ms says how long yours take"
            )
        needed, share = self.need.clips_per_second, self.need.clips_per_second / delivered
        if share <= COMFORTABLE:
            return f"enough: {self.need} are {share:.0%} of the {delivered:,.0f} that this host delivers"
        if share <= 1:
            return (
                f"just enough: {self.need} are {share:.0%} of the {delivered:,.0f} that this host delivers; "
                f"above {COMFORTABLE:.0%} steps begin to wait"
            )
        return f"short by {1 - 1 / share:.0%}: {self.need}, delivered {delivered:,.0f}; {self._help(needed)}"

    def _help(self, needed: float) -> str:
        knobs = self.knobs()
        closing = [way for way in knobs if self.projected(way) >= needed]
        if closing:
            return f"cheapest knob that closes the gap: {closing[0].name} (x{self.gain(closing[0]):.2f})"
        most = max(knobs, key=self.gain, default=None)
        text = "no single knob closes the gap"
        if most is not None:
            text += f": {most.name} gives most (x{self.gain(most):.2f})"
        cores = self.cores_needed()
        if cores is not None:
            text += f"; {cores} cores like these would, or several hosts (extrapolated)"
        return text

    def to_json(self) -> dict[str, Any]:
        """All figures, for a file."""
        return {
            "clips_per_second": round(self.now.clips_per_second, 1),
            "needed_clips_per_second": self.need and round(self.need.clips_per_second, 2),
            "cores": self.cores,
            "clips_per_second_by_cores": {str(n): round(rate, 2) for n, rate in self.per_core().items()},
            "cores_needed_extrapolated": self.cores_needed(),
            "spread": round(self.spread, 4),
            "ways": [
                {
                    "name": way.name,
                    "clips_per_second": round(way.clips_per_second, 1),
                    "busy_cores": round(way.busy_cores, 2),
                    "gain": round(self.gain(way), 4),
                    "compared_with": way.reference,
                }
                for way in self.ways.values()
            ],
            "verdict": self.verdict(),
        }

    def picture(self) -> bytes:
        """A PNG: a bar for each way, and a line where the need is."""
        from matplotlib.figure import Figure

        ways, helpful = list(self.ways.values()), self.knobs()
        figure = Figure(figsize=(9, 1.6 + 0.36 * len(ways)), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        rates = [self.projected(way) for way in ways]
        colours = ["#22577a" if w is self.now else "#57a773" if w in helpful else "#b0b7bf" for w in ways]
        texts = [f"{rate:,.0f}  x{self.gain(way):.2f}" for way, rate in zip(ways, rates, strict=True)]
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.bar_label(axes.barh(range(len(ways)), rates, color=colours), texts, padding=5, bbox=behind)
        axes.set_yticks(range(len(ways)), [way.name for way in ways])
        axes.invert_yaxis()
        right = max(rates)
        if self.need is not None:
            needed = self.need.clips_per_second
            spare = f"needed, with {1 - COMFORTABLE:.0%} to spare"
            axes.axvline(needed, color="#c1121f", linewidth=2, label=f"needed: {self.need}")
            axes.axvline(needed / COMFORTABLE, color="#c1121f", linewidth=1, linestyle=":", label=spare)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False, fontsize=9)
            right = max(right, needed / COMFORTABLE)
        axes.set_xlim(0, right * 1.16)
        axes.set(xlabel="clips/s", title=f"What {self.cores} cores deliver, and what would change it")
        axes.spines[["top", "right"]].set_visible(False)
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
        return content.getvalue()
