"""UCF101: 13,320 clips of 101 actions, with the three official train/test splits."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from reelmill.datasets import storage
from reelmill.datasets.collections.base import Entry
from reelmill.datasets.collections.text_files import Line, read_lines
from reelmill.datasets.errors import UsageError

FILE_NAME = re.compile(r"v_(?P<cls>[A-Za-z]+)_g(?P<group>\d{2})_c(?P<clip>\d{2})\.avi")
_LISTS = "ucfTrainTestlist"
_VIDEOS = "UCF-101"
_FIX = f"set the option 'annotations' to the folder of the official lists ({_LISTS})"
_TWO_SPELLINGS = "HandstandPushups"
_OFFICIAL_STEM, _REPAIRED_STEM = "v_HandStandPushups_", "v_HandstandPushups_"


@dataclass(frozen=True, kw_only=True)
class Ucf101:
    """``UCF-101/<Class>/v_<Class>_gGG_cCC.avi`` with ``ucfTrainTestlist/``.

    A video that a list names is an entry whether it is on disk or not.
    """

    root: str
    """Folder that holds ``UCF-101``, or that folder itself."""
    annotations: str | None = None
    """Folder of the official lists; null: ``ucfTrainTestlist`` below the root."""
    fold: Literal[1, 2, 3] = 1
    """Which of the three official splits."""
    val_groups: tuple[int, ...] = ()
    """Groups of the train list that become ``val``, as [25]. Clips of one group share people and place, so a
    group is never divided; 22 to 25 are in the train list of every fold. Empty: no ``val``."""

    @property
    def name(self) -> str:
        """``ucf101``."""
        return "ucf101"

    def labels(self) -> list[str]:
        """The classes in the order of ``classInd.txt``; an index is the number there less one."""
        labels: list[str] = []
        for line in self._lines("classInd.txt"):
            number, _, label = line.text.partition(" ")
            if number != str(len(labels) + 1) or not label or label in labels:
                raise line.error(f"should be '{len(labels) + 1} <Class>' with a new class")
            labels.append(label)
        return labels

    def entries(self) -> Iterator[Entry]:
        """The clips of the fold's two lists; ``clip_id`` is the official file name without ``.avi``.

        Raises:
            UsageError: a list is not there, or ``val_groups`` names a group outside the train list.
            DatasetError: a list is malformed.
        """
        places = {label: place for place, label in enumerate(self.labels(), start=1)}
        lines = {split: list(self._lines(f"{split}list{self.fold:02}.txt")) for split in ("train", "test")}
        clips = [(split, *_parse(line, places)) for split in lines for line in lines[split]]
        groups = {int(match["group"]) for split, _, match in clips if split == "train"}
        for group in self.val_groups:
            if group not in groups:
                valid = ", ".join(map(str, sorted(groups)))
                raise UsageError(
                    f"val_groups names {group}, which is not in the train list: choose from {valid}"
                )
        below = _VIDEOS + "/" if self._has_videos_folder(places) else ""
        on_disk = set(storage.list_names(storage.join(self.root, below + _TWO_SPELLINGS)))
        for split, label, match in clips:
            official = match[0]
            if label == _TWO_SPELLINGS:
                official = official.replace(_REPAIRED_STEM, _OFFICIAL_STEM)
            repaired = official.replace(_OFFICIAL_STEM, _REPAIRED_STEM)
            file = repaired if official not in on_disk and repaired in on_disk else official
            stem = official.removesuffix(".avi")
            yield Entry(
                clip_id=stem,
                media_id=stem,
                video=f"{below}{label}/{file}",
                split="val" if split == "train" and int(match["group"]) in self.val_groups else split,
                labels=(label,),
            )

    def _lines(self, file: str) -> Iterator[Line]:
        folder = storage.join(self.root, _LISTS) if self.annotations is None else self.annotations
        return read_lines(storage.join(folder, file), fix=_FIX)

    def _has_videos_folder(self, labels: dict[str, int]) -> bool:
        # object stores have no folders to ask for, only files in them
        return bool(storage.list_names(storage.join(self.root, _VIDEOS))) or any(
            storage.is_url(self.root) and storage.list_names(storage.join(self.root, _VIDEOS, label))
            for label in labels
        )


def _parse(line: Line, places: dict[str, int]) -> tuple[str, re.Match[str]]:
    """Class and file name of ``<Class>/<file>.avi [<number>]``; the file's own prefix may be spelt otherwise."""
    path, *number = line.text.split()
    label, _, file = path.partition("/")
    match = FILE_NAME.fullmatch(file)
    if match is None:
        raise line.error("should be '<Class>/v_<Class>_gGG_cCC.avi', with the class's number in a train list")
    if label not in places:
        raise line.error(f"names the class {label!r}, which is not in classInd.txt")
    if number and number != [str(places[label])]:
        raise line.error(f"should give {label!r} the number {places[label]} that it has in classInd.txt")
    return label, match
