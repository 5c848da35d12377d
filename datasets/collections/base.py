"""What an adapter gives: entries, one per labelled clip, before any video is opened."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from reelmill.datasets import storage
from reelmill.datasets.errors import DatasetError

SPLIT = re.compile(r"[a-z0-9_]+")
"""What a split may be called; it becomes part of shard names."""
LARGEST_US = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One labelled clip as a collection lists it.

    Raises:
        DatasetError: a field is not what its description says.
    """

    clip_id: str
    """Unique in the collection, and the same in every listing, whatever else is added or removed."""
    video: str
    """Path relative to the collection's root, with ``/`` and without ``.`` or ``..``; or a URL."""
    split: str
    """``train``, ``val``, ``test`` or another word of ``[a-z0-9_]``."""
    labels: tuple[str, ...] = ()
    """Class names; none for an unlabelled clip, several for a multi-label one."""
    start_us: int | None = None
    """First presentation time inside the clip, in µs on the video's own timeline; None: its beginning."""
    end_us: int | None = None
    """First presentation time after the clip; None: the video's end."""
    media_id: str
    """Names the video; clips cut from one video share it."""

    def __post_init__(self) -> None:
        for name in ("clip_id", "video", "media_id", "split"):
            _check_text(name, getattr(self, name))
        if not storage.is_url(self.video) and not {"", ".", ".."}.isdisjoint(self.video.split("/")):
            raise DatasetError(
                f"video = {self.video!r} must be a path relative to the root, without empty parts, . or .."
            )
        if not SPLIT.fullmatch(self.split):
            raise DatasetError(f"split = {self.split!r} must consist of a-z, 0-9 and _")
        if not isinstance(self.labels, tuple):
            raise DatasetError(f"labels = {self.labels!r} must be a tuple of class names")
        for label in self.labels:
            _check_text("label", label)
        if len(set(self.labels)) < len(self.labels):
            raise DatasetError(f"labels = {self.labels!r} names a class twice")
        self._check_times()

    def _check_times(self) -> None:
        for name in ("start_us", "end_us"):
            time = getattr(self, name)
            if time is None:
                continue
            if type(time) is not int or not 0 <= time <= LARGEST_US:
                raise DatasetError(f"{name} = {time!r} must be a whole number of microseconds from 0")
        if self.end_us is not None and self.end_us <= (self.start_us or 0):
            raise DatasetError(f"end_us = {self.end_us} must be greater than start_us = {self.start_us or 0}")


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str) or not text:
        raise DatasetError(f"{name} = {text!r} must be text and not empty")
    if "\0" in text:
        raise DatasetError(f"{name} = {text!r} holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DatasetError(f"{name} = {text!a} is not UTF-8: rename the file") from None


@runtime_checkable
class Collection(Protocol):
    """A raw data set whose layout an adapter knows."""

    @property
    def name(self) -> str:
        """Default name of datasets made from it; safe in file names."""

    def labels(self) -> list[str]:
        """Class names; a label's index is its place here. The same in every call."""

    def entries(self) -> Iterator[Entry]:
        """All clips, in any order, listed as they are asked for.

        Raises:
            UsageError: the collection is not there, or not laid out as its options say.
            DatasetError: a list that came with it is malformed.
        """


def safe_name(root: str) -> str:
    """A dataset name from the last part of a root folder.

    >>> safe_name("/videos/my set (2)/"), safe_name("gs://bucket/--"), safe_name("/")
    ('my-set-2', 'videos', 'videos')
    """
    last = root.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9_.]+", "-", last).strip("-.") or "videos"
