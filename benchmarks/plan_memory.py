"""Is the main process's memory flat in the number of clips?

Builds a column of one tiny record a clip from manifests of 1,000 and 100,000 rows, each in a process of its
own, and prints the peak memory of that process, which plans, watches and gathers but never decodes.

    python benchmarks/plan_memory.py [--rows 1000 100000]
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from reelmill.datasets.manifest import (
    FILE_NAME,
    HASH_SPACE,
    Clip,
    ManifestInfo,
    clip_hash,
    to_table,
    write_tables,
)
from reelmill.datasets.records.sequence_example import serialize
from reelmill.features.recipe import ClipMaker, ColumnOptions, Payload, Recipe, Request
from reelmill.pipelines.build.builder import build_column

BUCKETS = 64


@dataclass(frozen=True, kw_only=True)
class TinyRecipe(Recipe):
    """A record of a few bytes for every clip."""

    kind: ClassVar[str] = "tiny"
    Options: ClassVar[type[ColumnOptions]] = ColumnOptions

    @property
    def follows(self) -> None:
        """It is the only column."""
        return

    def source(self, clip: Clip) -> Mapping[str, Any]:
        """The clip's content."""
        return {"identity": clip.identity}

    def expected_bytes(self, clip: Clip) -> int:  # noqa: ARG002
        """Claims what a clip of ten seconds takes."""
        return 4 << 20

    def maker(self) -> "TinyMaker":
        """Makes the record."""
        return TinyMaker()


class TinyMaker(ClipMaker):
    """Makes the same record for every clip."""

    def payload(self, request: Request) -> Payload:  # noqa: ARG002
        """One step."""
        return Payload(data=serialize({}, {"tiny/timestamp": [0]}), steps=1)


def tables(rows: int) -> Iterator[pa.Table]:
    """A manifest's rows, a range of hashes at a time."""
    names = [f"class{n % 100:02d}/video{n:08d}.mp4" for n in range(rows)]
    hashes = [clip_hash(name) for name in names]
    for bucket in range(BUCKETS):
        lowest, below = HASH_SPACE * bucket // BUCKETS, HASH_SPACE * (bucket + 1) // BUCKETS
        yield to_table(
            Clip(clip_id=name, video=name, media_id=name, split="train", identity=f"sha256:{place:064x}")
            for name, place in zip(names, hashes, strict=True)
            if lowest <= place < below
        )


def measure(dataset: str, rows: int) -> None:
    """Build one column and print the peak memory of this process and the seconds it took."""
    result = build_column(dataset, TinyRecipe(name="tiny", options=ColumnOptions()))
    assert result.written == rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{rows:>9,} rows  {result.shards:>5} shards  main process peak {peak:6,.0f} MiB  {result.working_s:6.1f} s"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--dataset", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.dataset:
        measure(arguments.dataset, arguments.rows[0])
        return
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(prefix="reelmill-bench-") as dataset:
            write_tables(os.path.join(dataset, FILE_NAME), tables(rows), ManifestInfo("rows", []))
            command = [sys.executable, __file__, "--rows", str(rows), "--dataset", dataset]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
