"""``reelmill export``."""

from typing import Any

import click

from reelmill.pipelines.commands.common import say
from reelmill.pipelines.exports.youtube8m_files import QUANTISERS, YouTube8MOptions, export_youtube8m


@click.command("export")
@click.argument("dataset")
@click.option("--column", required=True, metavar="NAME", help="Column of features that becomes `rgb`.")
@click.option("--audio", metavar="NAME", help="Column of features that becomes `audio`.")
@click.option(
    "--format", "file_format", type=click.Choice(["youtube8m"]), required=True, help="What to write."
)
@click.option("--out", required=True, metavar="DIR", help="Folder or URL to write to.")
@click.option(
    "--max-steps", type=click.IntRange(min=1), help="Keep so many steps of a clip; YouTube-8M has 300."
)
@click.option(
    "--step-s",
    type=click.FloatRange(min=0, min_open=True),
    help="Least seconds from one kept step to the next; YouTube-8M has 1.",
)
@click.option(
    "--quantiser",
    type=click.Choice(list(QUANTISERS)),
    default="extractor",
    show_default=True,
    help="Bytes as YouTube-8M's own program writes them, or those that are read back as the nearest values.",
)
@click.option("--prefix", metavar="NAME", help="Features to take where the column has several kinds, as RGB.")
@click.option("--audio-prefix", metavar="NAME", help="The same for the audio column.")
def command(dataset: str, file_format: str, out: str, **values: Any) -> None:  # noqa: ARG001 - there is one
    """Features -> records in the format of YouTube-8M."""
    result = export_youtube8m(dataset.rstrip("/") or dataset, out, YouTube8MOptions(**values))
    sizes = ", ".join(f"{name} [{size:,}]" for name, size in result.sizes.items())
    say(f"{result.videos:,} videos of {result.steps:,} steps in {result.files:,} files: {sizes}")
    if result.left_out:
        say(f"  left out  {result.left_out:>6,}  clips without a step")
    if result.silent:
        say(f"  silent    {result.silent:>6,}  without features of sound: audio is zeros")
    say(f"records: {out}")
