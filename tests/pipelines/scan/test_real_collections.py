"""Real clips of UCF101 and HMDB51 with their official split files, through scan and frames."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelmill.datasets.column import Column
from reelmill.datasets.manifest import Manifest
from reelmill.datasets.verify import verify_dataset
from reelmill.features.frames.recipe import FramesOptions, FramesRecipe

REAL = Path(__file__).parents[3].parent / "shared" / "real"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not REAL.exists(), reason="the real clips are not next to the repository"),
]


BuildFrames = Callable[..., dict[str, int]]


@pytest.fixture
def build_frames(scan_collection: Callable[..., Any], build_recipe: Callable[..., Any]) -> BuildFrames:
    """Build frames of a collection with only a few of its videos; return the number of frames of each written clip."""

    def build(dataset: Path, raw: Path, **section: Any) -> dict[str, int]:
        scan_collection(dataset, raw, **section)
        recipe = FramesRecipe(options=FramesOptions(short_side=64), raw=str(raw))
        result = build_recipe(dataset, recipe, shards=1, max_quarantine=1.0)
        assert set(result.reasons) == {"missing"}
        assert verify_dataset(str(dataset)).problems == []
        return {row["clip_id"]: row["steps"] for row in Column(str(dataset), "frames").index().to_pylist()}

    return build


def test_ucf101(tmp_path: Path, build_frames: BuildFrames) -> None:
    shutil.copytree(REAL / "videos" / "datasets" / "UCF101", tmp_path / "UCF-101")
    lists = REAL / "annotations" / "ucf101" / "ucfTrainTestlist"
    options = {"annotations": str(lists), "fold": 1}
    frames = build_frames(tmp_path / "set", tmp_path, collection="ucf101", options=options, name="ucf101")
    assert sorted(frames.values()) == [164, 240, 251]
    with Manifest(str(tmp_path / "set" / "manifest.parquet")) as manifest:
        assert manifest.num_clips == 13320
        clips = {clip.clip_id: clip for clip in manifest.clips() if clip.clip_id in frames}
    by_name = {Path(clip.video).stem: (clip.split, clip.labels, clip.label_index) for clip in clips.values()}
    assert by_name == {
        "v_ApplyEyeMakeup_g01_c01": ("test", ["ApplyEyeMakeup"], [0]),
        "v_SoccerJuggling_g23_c01": ("train", ["SoccerJuggling"], [83]),
        "v_SoccerJuggling_g24_c01": ("train", ["SoccerJuggling"], [83]),
    }


def test_hmdb51_with_special_characters_in_names(tmp_path: Path, build_frames: BuildFrames) -> None:
    """Official file names with characters that have a meaning in shells, globs, URLs or command lines."""
    videos = REAL / "videos" / "datasets" / "HMDB51"
    lists = REAL / "annotations" / "hmdb51" / "testTrainMulti_7030_splits"
    source = videos / "wave" / "SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi"
    raw = tmp_path / "hmdb51"
    shutil.copytree(videos, raw)
    expected = {path.stem: None for path in videos.rglob("*.avi")}
    assert any("!" in name and "+" in name for name in expected)
    for file in sorted(lists.glob("*_test_split1.txt")):
        names = [line.split()[0] for line in file.read_text().splitlines() if line.split()[1] != "0"]
        for character in "[]#&!()-;@":
            name = next((n for n in names if character in n and not n.startswith("v_")), None)
            if name is not None and Path(name).stem not in expected:
                folder = raw / file.name.removesuffix("_test_split1.txt")
                folder.mkdir(exist_ok=True)
                shutil.copyfile(source, folder / name)
                expected[Path(name).stem] = None
    special = [name for name in expected if set(name) & set("[]#&!()")]
    assert all(any(character in name for name in special) for character in "[]#&!()")
    options = {"annotations": str(lists), "fold": 1}
    frames = build_frames(tmp_path / "set", raw, collection="hmdb51", options=options, name="hmdb51")
    with Manifest(str(tmp_path / "set" / "manifest.parquet")) as manifest:
        stored = {Path(clip.video).stem for clip in manifest.clips() if clip.clip_id in frames}
        listed = {Path(clip.video).stem for clip in manifest.clips()}
    # clips that the fold does not use have no row; all others are written
    assert stored == set(expected) & listed
    assert set(special) & listed <= stored
    assert len(set(special) & listed) >= 20
    assert all(steps >= 72 for steps in frames.values())
