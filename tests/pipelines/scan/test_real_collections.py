"""UCF101 and HMDB51 from their official split files and real clips, through scan and frames."""

import shutil
from pathlib import Path

import pytest

from reelmill.datasets.column import Column
from reelmill.datasets.manifest import Manifest
from reelmill.datasets.verify import verify_dataset
from reelmill.features.frames.recipe import FramesOptions, FramesRecipe
from reelmill.pipelines.build.builder import build_column
from reelmill.pipelines.scan.scanner import ScanSection, scan

REAL = Path(__file__).parents[3].parent / "shared" / "real"
IN_PROCESS = ("--direct_running_mode=in_memory", "--direct_num_workers=1")

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not REAL.exists(), reason="the real clips are not beside the repository"),
]


def written(dataset: Path, section: ScanSection) -> dict[str, int]:
    """Build frames of a collection of which only a few videos are there; frames of each written clip."""
    scan(str(dataset), section, beam_options=IN_PROCESS)
    recipe = FramesRecipe(options=FramesOptions(short_side=64), raw=section.raw)
    result = build_column(str(dataset), recipe, shards=1, max_quarantine=1.0, beam_options=IN_PROCESS)
    assert set(result.reasons) == {"missing"}
    assert verify_dataset(str(dataset)).problems == []
    return {row["clip_id"]: row["steps"] for row in Column(str(dataset), "frames").index().to_pylist()}


def test_ucf101(tmp_path: Path) -> None:
    shutil.copytree(REAL / "videos" / "datasets" / "UCF101", tmp_path / "UCF-101")
    lists = REAL / "annotations" / "ucf101" / "ucfTrainTestlist"
    section = ScanSection(
        raw=str(tmp_path), collection="ucf101", options={"annotations": str(lists), "fold": 1}, name="ucf101"
    )
    found = written(tmp_path / "set", section)
    assert sorted(found.values()) == [164, 240, 251]
    with Manifest(str(tmp_path / "set" / "manifest.parquet")) as manifest:
        assert manifest.num_clips == 13320
        clips = {clip.clip_id: clip for clip in manifest.clips() if clip.clip_id in found}
    by_name = {Path(clip.video).stem: (clip.split, clip.labels, clip.label_index) for clip in clips.values()}
    assert by_name == {
        "v_ApplyEyeMakeup_g01_c01": ("test", ["ApplyEyeMakeup"], [0]),
        "v_SoccerJuggling_g23_c01": ("train", ["SoccerJuggling"], [83]),
        "v_SoccerJuggling_g24_c01": ("train", ["SoccerJuggling"], [83]),
    }


def test_hmdb51_names(tmp_path: Path) -> None:
    """Real bytes under official names that hold what shells, globs, URLs and command lines trip over."""
    videos = REAL / "videos" / "datasets" / "HMDB51"
    lists = REAL / "annotations" / "hmdb51" / "testTrainMulti_7030_splits"
    one = videos / "wave" / "SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi"
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
                shutil.copyfile(one, folder / name)
                expected[Path(name).stem] = None
    special = [name for name in expected if set(name) & set("[]#&!()")]
    assert all(any(character in name for name in special) for character in "[]#&!()")
    section = ScanSection(
        raw=str(raw), collection="hmdb51", options={"annotations": str(lists), "fold": 1}, name="hmdb51"
    )
    found = written(tmp_path / "set", section)
    with Manifest(str(tmp_path / "set" / "manifest.parquet")) as manifest:
        stored = {Path(clip.video).stem for clip in manifest.clips() if clip.clip_id in found}
        listed = {Path(clip.video).stem for clip in manifest.clips()}
    # clips on disk that this fold does not use have no row; all others are written
    assert stored == set(expected) & listed
    assert set(special) & listed <= stored
    assert len(set(special) & listed) >= 20
    assert all(74 in {steps} or steps >= 72 for steps in found.values())
