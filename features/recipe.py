"""What a column is made of: a recipe says what a clip's payload depends on, its maker makes the payloads.

The frames column and every column derived from it are recipes. A recipe knows nothing of shards, ledgers or
Beam: pipelines hand it clips, and the records of the columns that it reads, and store what it gives back.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field

from reelmill.datasets.manifest import Clip
from reelmill.datasets.records.sequence_example import SequenceExample, parse


class ClipError(Exception):
    """A clip that ends in quarantine.

    Args:
        reason: one of :data:`reelmill.datasets.column.REASONS`.
        detail: what was said or measured.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ColumnOptions(BaseModel):
    """Base of the columns' options: a section of params.yaml. Each field has a docstring, shown to users."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    controls: ClassVar[frozenset[str]] = frozenset({"shards", "max_quarantine", "workers"})
    """Fields that say how to build; no record depends on them."""
    limits: ClassVar[frozenset[str]] = frozenset()
    """Fields that say when to give a clip up; the bytes of a written record do not depend on them."""

    max_quarantine: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Largest share of quarantined clips with which the build succeeds, 0 to 1"""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Local worker processes; null is one for each core"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What a column stores for one clip."""

    data: bytes
    """A serialized SequenceExample with the column's own keys; the clip's head is put before it."""
    steps: int
    """Entries of its main feature list, as frames."""
    decode_errors: int = 0
    """Complaints of the decoder that did not stop it."""
    detail: str | None = None
    """What to note in the ledger about a clip that was written."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Values of the recipe's :attr:`Recipe.figures`, for the index."""


@dataclass(frozen=True, slots=True)
class Request:
    """A clip whose payload is wanted."""

    clip: Clip
    records: Mapping[str, bytes]
    """Its record in each column that the recipe reads, by the column's name."""

    def parsed(self, column: str) -> SequenceExample:
        """Its record in a column that the recipe reads, as plain containers."""
        return parse(self.records[column])


class Maker(Protocol):
    """Makes payloads in a worker; may hold models or child processes."""

    def make(self, requests: Iterator[Request]) -> Iterator[Payload | ClipError]:
        """One payload for each request, in their order, or the error that puts its clip in quarantine.

        May read requests ahead of what it gives back, as to fill a batch with frames of several clips.
        """
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class ClipMaker(ABC):
    """A maker that looks at one clip at a time: write :meth:`payload`."""

    @abstractmethod
    def payload(self, request: Request) -> Payload:
        """The payload of one clip. Raises :class:`ClipError` to quarantine it."""

    def make(self, requests: Iterator[Request]) -> Iterator[Payload | ClipError]:
        """See :class:`Maker`."""
        for request in requests:
            try:
                yield self.payload(request)
            except ClipError as error:
                yield error

    def close(self) -> None:
        """Nothing is held between clips."""
        return


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """How to make one column. Pickled to the workers; equal recipes make equal bytes.

    A subclass redeclares ``options`` with its own type, which is also the class variable ``Options``.
    """

    kind: ClassVar[str]
    """Kind of column, as ``frames``: stands in ``column.json``."""
    Options: ClassVar[type[ColumnOptions]]
    """What its section of params.yaml holds."""
    payload_version: ClassVar[int] = 1
    """Raised whenever equal options begin to give other bytes; part of every record's fingerprint."""
    figures: ClassVar[tuple[str, ...]] = ()
    """Names of what is measured of every clip: further fields of the index."""

    name: str
    """Of the column and of its folder."""
    options: ColumnOptions
    """What to make."""
    raw: str | None = None
    """Path or URL of the collection that the manifest's ``video`` paths are below."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the columns whose records it is made from; none for a column made from the videos."""
        return ()

    @property
    def follows(self) -> str | None:
        """Column whose division into shards it takes over, so that both can be joined; None: it decides itself."""
        return self.reads[0] if self.reads else "frames"

    def parameters(self) -> dict[str, Any]:
        """All that a payload depends on besides its source: goes into ``column.json`` and the fingerprints.

        Plain JSON values. A file that an option names stands here as a hash of its content, never as its path.
        """
        left_out = self.options.controls | self.options.limits
        chosen = self.options.model_dump(mode="json", exclude=set(left_out))
        return {**chosen, "payload_version": self.payload_version}

    def made_by(self) -> dict[str, str]:
        """Versions of what makes it: other versions make other bytes, so they are part of the fingerprints."""
        return {}

    def source(self, clip: Clip) -> Mapping[str, Any]:  # noqa: ARG002
        """All of the manifest's row that the payload depends on; of records that it reads, nothing."""
        return {}

    def expected_bytes(self, clip: Clip) -> int:  # noqa: ARG002
        """Roughly how long a record of frames will be; decides how many shards the dataset has."""
        return 0

    def remarks(self, figures: Mapping[str, float]) -> list[str]:  # noqa: ARG002
        """Warnings about a finished column, each one line that says what to change.

        Args:
            figures: mean of each of :attr:`figures` over all steps of the column.
        """
        return []

    @abstractmethod
    def maker(self) -> Maker:
        """Called once in each worker."""

    def described(self) -> str:
        """All that an interrupted build must have in common with the one that goes on from it."""
        return repr((self.kind, self.options.model_dump(exclude=set(self.options.controls)), self.raw))
