"""The example in docs/adding-a-collection.md, run as it is."""

import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from reelmill.datasets.collections.folder import Folder
from reelmill.datasets.collections.hmdb51 import Hmdb51
from reelmill.datasets.collections.registry import open_collection
from reelmill.datasets.collections.table import Table
from reelmill.datasets.collections.ucf101 import Ucf101
from reelmill.datasets.errors import UsageError

GUIDE = (Path(__file__).parents[3] / "docs" / "adding-a-collection.md").read_text(encoding="utf-8")


def test_example_lists_kth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_files: Callable[..., str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    (tmp_path / "kth.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "kth", raising=False)
    actions = ["boxing", "handclapping", "handwaving", "jogging", "running", "walking"]
    videos = [
        f"{action}/person{person:02}_{action}_d{scene}_uncomp.avi"
        for action in actions
        for person in range(1, 26)
        for scene in range(1, 5)
        if (action, person, scene) != ("handclapping", 13, 3)  # missing in the official archive
    ]
    root = make_files(*videos, "boxing/00sequences.txt")

    collection = open_collection("kth:Kth", root)
    entries = list(collection.entries())
    assert collection.name == "kth"
    assert collection.labels() == actions
    assert sorted(entry.video for entry in entries) == sorted(videos)
    assert Counter(entry.split for entry in entries) == {"train": 191, "val": 192, "test": 216}
    assert len({entry.clip_id for entry in entries}) == 599

    indoors = open_collection("kth:Kth", root, {"scenes": [4]})
    assert len(list(indoors.entries())) == 150
    with pytest.raises(UsageError, match=r"did you mean 'scenes'"):
        open_collection("kth:Kth", root, {"scene": [4]})


@pytest.mark.parametrize("adapter", [Folder, Table, Ucf101, Hmdb51])
def test_guide_names_every_option(adapter: type[Folder | Table | Ucf101 | Hmdb51]) -> None:
    (row,) = re.findall(rf"^\| `{adapter.__name__.lower()}` \|.*$", GUIDE, flags=re.MULTILINE)
    options = [field.name for field in fields(adapter) if field.name != "root"]
    assert [option for option in options if f"`{option}`" not in row] == []
