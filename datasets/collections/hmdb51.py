"""HMDB51: 6,766 clips of 51 actions, with the three official splits."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from reelmill.datasets import storage
from reelmill.datasets.collections.base import Entry
from reelmill.datasets.collections.text_files import read_lines
from reelmill.datasets.errors import UsageError

_LISTS = "testTrainMulti_7030_splits"
_FIX = f"set the option 'annotations' to the folder of the official split files ({_LISTS})"
_SPLITS = {"0": "unused", "1": "train", "2": "test"}
_REPLACED = str.maketrans(dict.fromkeys("!()[]&;", "_"))
"""How other copies of the collection spell the names; all of them stay unique."""


@dataclass(frozen=True, kw_only=True)
class Hmdb51:
    """``<class>/<clip>.avi`` with ``testTrainMulti_7030_splits/<class>_test_splitN.txt``.

    A video that a split file names is an entry whether it is on disk or not.
    """

    root: str
    """Folder that holds the 51 class folders."""
    annotations: str | None = None
    """Folder of the official split files; null: ``testTrainMulti_7030_splits`` below the root."""
    fold: Literal[1, 2, 3] = 1
    """Which of the three official splits."""
    unused: bool = False
    """Whether the clips that are in neither train nor test of the fold are listed, as the split ``unused``."""

    @property
    def name(self) -> str:
        """``hmdb51``."""
        return "hmdb51"

    def labels(self) -> list[str]:
        """The classes that have a split file for the fold, sorted."""
        ending = f"_test_split{self.fold}.txt"
        # the class may hold "_" itself, so the ending is cut off rather than the name split
        labels = [
            file.removesuffix(ending) for file in storage.list_names(self._folder) if file.endswith(ending)
        ]
        if not labels:
            raise UsageError(f"no <class>{ending} in {self._folder!r}: {_FIX}")
        return sorted(labels)

    def entries(self) -> Iterator[Entry]:
        """The clips of the fold; ``clip_id`` is the official file name without ``.avi``.

        Where a file is there only under the name with ``_`` for each of ``! ( ) [ ] & ;``, that is the entry's
        video; its ``clip_id`` stays the official one.

        Raises:
            UsageError: the split files are not there.
            DatasetError: a line of one is malformed.
        """
        for label in self.labels():
            on_disk = set(storage.list_names(storage.join(self.root, label)))
            path = storage.join(self._folder, f"{label}_test_split{self.fold}.txt")
            for line in read_lines(path, fix=_FIX):
                file, _, number = line.text.rpartition(" ")
                file = file.rstrip()
                if number not in _SPLITS or not re.fullmatch(r"[^/]+\.avi", file):
                    raise line.error("should be '<file>.avi <0|1|2>'")
                if number == "0" and not self.unused:
                    continue
                replaced = file.translate(_REPLACED)
                found = replaced if file not in on_disk and replaced in on_disk else file
                stem = file.removesuffix(".avi")
                yield Entry(
                    clip_id=stem,
                    media_id=stem,
                    video=f"{label}/{found}",
                    split=_SPLITS[number],
                    labels=(label,),
                )

    @property
    def _folder(self) -> str:
        return storage.join(self.root, _LISTS) if self.annotations is None else self.annotations
