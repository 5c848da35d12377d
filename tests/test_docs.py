"""What README.md, CONTRIBUTING.md and docs/format.md say, held against the code."""

import importlib
import os
import re
import shlex
import subprocess
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from reelmill.datasets import column, manifest, synthetic
from reelmill.datasets.records import keys
from reelmill.features.frames.decode import quantiser
from reelmill.pipelines.cli import COMMANDS, LazyGroup, root

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
)
OTHER_PROGRAMS = {"cd", "git", "bash", "."}
"""Programs that the documents may call besides ours."""


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", read(document), flags=re.DOTALL | re.MULTILINE)


def rows(document: str, heading: str, *, table: int = 0) -> list[list[str]]:
    """The cells of a table below a heading, without its head; code marks taken off."""
    (section,) = re.findall(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", read(document), re.DOTALL | re.MULTILINE
    )
    tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    lines = tables[table].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def described(schema: Any) -> list[list[str]]:
    return [[field.name, str(field.type), "yes" if field.nullable else "no"] for field in schema]


def tracked_files() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    return [name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def make(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run make, which may be running these tests itself."""
    clean = {
        key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=clean, check=True, capture_output=True, text=True
    )


SHELL_LINES = [
    pytest.param(document, line, id=f"{document}: {line.partition('#')[0].strip()}")
    for document in DOCUMENTS
    for block in blocks(document, "sh")
    for line in block.splitlines()
    if line.strip()
]


@pytest.mark.parametrize(("document", "line"), SHELL_LINES)
def test_commands_in_shell_blocks_exist(document: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    match words:
        case ["make", *arguments]:
            make("-n", *arguments)
        case ["reelmill", name, *arguments]:
            assert isinstance(root, LazyGroup)
            command = root.get_command(click.Context(root), name)
            while isinstance(command, click.Group):
                name, *arguments = arguments
                command = command.commands[name]
            known = {option for parameter in command.params for option in parameter.opts}
            given = {word.split("=")[0] for word in arguments if word.startswith("--")}
            assert given <= known | {"--"}
            command.make_context(name, [*arguments], parent=click.Context(root)).close()
        case ["dvc", name, *_]:
            dvc = importlib.import_module("dvc.cli.parser").get_main_parser()
            assert dvc.parse_args([name]).cmd == name
        case _:
            assert words[0] in OTHER_PROGRAMS, f"{document} calls {words[0]}"


@pytest.fixture
def demo_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small dataset data/demo below the working directory."""
    monkeypatch.chdir(tmp_path)
    jpegs = synthetic.wandering_clip(4, 112, 150, seed=0)
    recordings = [
        synthetic.Recording(
            clip_id=f"clip{i}",
            split="train",
            labels=["a" if i % 2 else "b"],
            jpegs=jpegs,
            height=112,
            width=150,
        )
        for i in range(8)
    ]
    synthetic.write_dataset("data/demo", recordings, labels=["a", "b"], shards=2)


PYTHON_BLOCKS = [
    pytest.param(block, id=f"{document}-{number}")
    for document in ("README.md", "docs/format.md")
    for number, block in enumerate(blocks(document, "python"))
]


@pytest.mark.parametrize("block", PYTHON_BLOCKS)
@pytest.mark.usefixtures("demo_dataset")
def test_python_blocks_run(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block, "<document>", "exec"), {"__name__": "document"})
    printed = capsys.readouterr().out.splitlines()
    told = [line.partition("# ")[2] for line in block.splitlines() if "print(" in line]
    assert printed
    for said, comment in zip(printed, told, strict=False):
        if comment.startswith("("):
            assert said == comment.partition(":")[0]


def test_readme_is_short_and_names_every_command() -> None:
    text = read("README.md")
    assert len(text.splitlines()) <= 120
    cells = [re.sub(r"\[.*?\]|[A-Z]+|--raw", "", row[0]) for row in rows("README.md", "Commands")]
    named = [word for cell in cells for word in re.findall(r"[a-z]+", cell) if word != "reelmill"]
    assert named == list(COMMANDS)


def test_readme_names_benchmarks_that_exist() -> None:
    for row in rows("README.md", "How fast"):
        assert (ROOT / row[1].partition("BENCH=")[2]).is_file(), row[1]


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", read(document)):
            if not re.match(r"https?://", target):
                assert (ROOT / document).parent.joinpath(target).exists(), f"{document}: {target}"


def test_manifest_table() -> None:
    assert [row[:3] for row in rows("docs/format.md", "Manifest")] == described(manifest.SCHEMA)
    documented = [row[0] for row in rows("docs/format.md", "Manifest", table=1)]
    assert documented == [field.name for field in fields(manifest.ManifestInfo)]


def test_index_and_ledger_tables() -> None:
    assert [row[:3] for row in rows("docs/format.md", "Index")] == described(column.INDEX_SCHEMA)
    assert [row[:3] for row in rows("docs/format.md", "Ledger")] == described(column.LEDGER_SCHEMA)
    assert dict(rows("docs/format.md", "Ledger", table=1)) == column.REASONS


def test_description_table() -> None:
    documented = [row[0] for row in rows("docs/format.md", "Description")]
    assert documented == [field.name for field in fields(column.Description)]


def test_schema_versions() -> None:
    assert dict(rows("docs/format.md", "Description"))["schema_version"] == str(column.SCHEMA_VERSION)
    assert dict(rows("docs/format.md", "Manifest", table=1))["schema_version"] == str(manifest.SCHEMA_VERSION)


def test_record_keys() -> None:
    documented = {row[0] for table in (0, 1, 2, 3) for row in rows("docs/format.md", "Records", table=table)}
    known = {name: value for name, value in vars(keys).items() if name.isupper()}
    prefixes = {name for name in known if name.endswith("_PREFIX")}
    expected = {f"PREFIX/{value}" if name.startswith("FEATURE_") else value for name, value in known.items()}
    assert documented == expected - {known[name] for name in prefixes}


@pytest.mark.usefixtures("demo_dataset")
def test_record_keys_are_where_the_tables_say() -> None:
    opened = column.Column("data/demo", "frames")
    row = opened.index().to_pylist()[0]
    from reelmill.datasets.records.sequence_example import parse
    from reelmill.datasets.records.tfrecord import read_record_at
    from reelmill.datasets.storage import open_read

    shard = column.Shard(row["split"], row["shard"], opened.description.shards[row["split"]])
    with open_read(opened.shard_path(shard)) as file:
        record = parse(read_record_at(file, row["offset"], size=row["size"]))
    types = {bytes: "bytes", int: "int64", float: "float"}
    places = {key: ("C", types[type(values[0])]) for key, values in record.context.items()}
    places |= {key: ("L", types[type(steps[0][0])]) for key, steps in record.feature_lists.items()}
    tables = [row for table in (0, 1) for row in rows("docs/format.md", "Records", table=table)]
    documented = {key: (place, kind.removesuffix(" list")) for key, place, kind, _ in tables}
    assert places.items() <= documented.items()


def test_quality_table() -> None:
    text = read("docs/format.md")
    (qualities,) = re.findall(r"^\| quality \|(.*)\|$", text, re.MULTILINE)
    (quantisers,) = re.findall(r"^\| quantiser \|(.*)\|$", text, re.MULTILINE)
    assert [quantiser(int(q)) for q in qualities.split("|")] == [int(q) for q in quantisers.split("|")]


def test_make_targets_are_listed() -> None:
    text = read("Makefile")
    listed = make("help").stdout
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert {line.split()[1] for line in listed.splitlines()} == set(phony.split()) - {"FORCE"}


def test_everything_is_pinned_to_what_will_do() -> None:
    lines = [line for line in read("constraints.txt").splitlines() if line and not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    project = tomllib.loads(read("pyproject.toml"))
    wanted = [
        *project["project"]["dependencies"],
        *(line for extra in project["project"]["optional-dependencies"].values() for line in extra),
        *project["build-system"]["requires"],
        "uv",
    ]
    for requirement in map(Requirement, wanted):
        if requirement.name != project["project"]["name"]:
            pinned = pins.get(canonicalize_name(requirement.name))
            assert pinned is not None, f"constraints.txt lacks {requirement.name}: run make pins"
            assert requirement.specifier.contains(pinned, prereleases=True), f"{requirement} and {pinned}"


def test_no_machine_is_named() -> None:
    """No absolute path of a machine, and no package index, stands in a tracked file."""
    folders = "|".join(["home", "root", "Users", "tmp", "opt", "mnt", "work/main", "work/shared"])
    path = re.compile(rf"(?<![\w.~/:*-])/(?:{folders})/\w")
    index = re.compile(r"(?i)(?:--|\b)(?:extra-)?index" + r"-url[ =]+\S*:" + r"//|/sim" + r"ple/?(?=\s|$)")
    for name in tracked_files():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            assert not path.search(line), f"{name}:{number}: {line.strip()}"
            assert not index.search(line), f"{name}:{number}: {line.strip()}"
