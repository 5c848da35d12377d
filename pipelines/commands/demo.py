"""``reelmill demo``."""

import click


@click.command("demo")
@click.argument("folder", required=False, metavar="[DIR]")
def command(folder: str | None) -> None:
    """Run the whole main job on a collection that it makes itself.

    Makes videos, a few of them broken, and runs `dvc repro` over them: scan, frames, train, evaluate. DIR is
    the current folder if that is the demo's project, else reelmill-demo. Run it again and it continues.
    """
    from reelmill.pipelines.demo.main_job import run_demo

    run_demo(folder)
