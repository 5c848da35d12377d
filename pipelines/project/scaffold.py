"""A DVC project: params.yaml, dvc.yaml and what goes with them.

The texts lie in ``templates/``; params.yaml is written from the sections' models, so it names every key that
there is, with its description and its default.
"""

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from reelmill.datasets import storage
from reelmill.datasets.errors import BuildError, UsageError
from reelmill.pipelines.params import fields_of

COMMENT_WIDTH = 100
DVC_CONFIG = "[core]\n    analytics = false\n    check_update = false\n"
INIT_TIMEOUT_S = 120

_PARAMS_HEAD = """\
# Every parameter of this project, each with its description. A command's option of the same name goes before
# what is said here; a key that is left out has its default. `dvc repro` runs the stages that a change touches.

# Folder or URL that the dataset is built in
dataset: {dataset}
"""
_FEATURES_HEAD = """\
# Features of Keras models: columns by name, each with a stage of its own
"""
_NO_FEATURES = """\
# Features of Keras models: columns by name, as `rgb_vgg16_fc2: {over: frames, model: VGG16, layer: fc2}`
features: {}
"""
_OWN_COLUMNS = """\
# Columns of kinds of your own, by name, as `brightness: {make: 'my_module:Brightness'}`
columns: {}
"""
_RUNS_HEAD = """\
# Trainings by name, each with what it has of its own; every key of the section train can stand here
"""
_RAW_DEP = "      - ${scan.raw}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What one project differs in from another. Paths are as the project's folder sees them."""

    dataset: str
    """Where the dataset is built."""
    raw: str
    """Where the videos are."""
    collection: str = "folder"
    """How they are laid out."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What that layout wants to know."""
    inputs: tuple[str, ...] = ()
    """Those of ``options`` that name a file or folder which the scan reads besides the videos."""
    columns: tuple[str, ...] = ()
    """Columns besides frames that have a section of their own: flow, motion, audio."""
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Columns of features by name, each with values other than the defaults."""
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"frames": {"columns": ["frames"]}})
    """Trainings by name, each with what differs from the section train."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Values other than the defaults, by section and key."""


def sections(columns: Sequence[str] = ()) -> dict[str, type[BaseModel]]:
    """The model of each section of params.yaml, with those of these columns besides frames."""
    from reelmill.pipelines.build.recipe_registry import COLUMN_RECIPES, load_recipe_class
    from reelmill.pipelines.project.runs import EvaluateSection, TrainSection
    from reelmill.pipelines.scan.scanner import ScanSection

    return {
        "scan": ScanSection,
        **{name: load_recipe_class(COLUMN_RECIPES[name]).Options for name in ("frames", *columns)},
        "train": TrainSection,
        "evaluate": EvaluateSection,
    }


def params_text(project: Project) -> str:
    """Content of the project's params.yaml."""
    settings = {
        **project.settings,
        "scan": {
            "raw": project.raw,
            "collection": project.collection,
            "options": dict(project.options),
            **project.settings.get("scan", {}),
        },
    }
    parts = [_PARAMS_HEAD.format(dataset=_yaml_value(project.dataset))]
    for name, model in sections(project.columns).items():
        if name == "train":
            parts += [_features_text(project), _OWN_COLUMNS]
        parts.append(f"{name}:\n" + _keys_text(model, settings.get(name, {}), indent="  "))
        if name == "train":
            parts.append(_runs_text(project))
    return "\n".join(parts)


def _keys_text(model: type[BaseModel], values: Mapping[str, Any], *, indent: str) -> str:
    """Every key of a section, each after its description."""
    model.model_validate(values)
    lines = []
    for key, info in fields_of(model).items():
        lines += textwrap.wrap(
            info.description or "",
            COMMENT_WIDTH,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
        )
        value = values[key] if key in values else info.get_default(call_default_factory=True)
        lines.append(f"{indent}{key}: {_yaml_value(value)}")
    return "\n".join(lines) + "\n"


def _features_text(project: Project) -> str:
    from reelmill.pipelines.build.recipe_registry import FEATURES_RECIPE, load_recipe_class

    if not project.features:
        return _NO_FEATURES
    model = load_recipe_class(FEATURES_RECIPE).Options
    entries = (
        f"  {name}:\n" + _keys_text(model, values, indent="    ") for name, values in project.features.items()
    )
    return _FEATURES_HEAD + "features:\n" + "".join(entries)


def _runs_text(project: Project) -> str:
    lines = [f"  {name}: {_yaml_value(dict(values))}" for name, values in project.runs.items()]
    return _RUNS_HEAD + "runs:\n" + "\n".join(lines) + "\n"


def _yaml_value(value: Any) -> str:
    """A value on one line, as YAML.

    >>> _yaml_value("data/a: b"), _yaml_value([128, 96]), _yaml_value(None)
    ("'data/a: b'", '[128, 96]', 'null')
    """
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1 << 30, sort_keys=False)
    return text.removesuffix("...\n").strip()


def dvc_text(project: Project) -> str:
    """Content of the project's dvc.yaml: one stage for each section of params.yaml, or for each of its entries."""
    more = "".join(f"      - ${{scan.options.{key}}}\n" for key in project.inputs)
    text = _template("dvc.template.yaml").replace(_RAW_DEP, _RAW_DEP + more, 1)
    stages = "".join(_column_stage(name) for name in project.columns)
    built = ["frames", *project.columns, *project.features]
    speeds = [*built, *(f"train/{run}" for run in project.runs)]
    plots = "".join(_template("plots.template.yaml").replace("@run@", run) for run in project.runs)
    for mark, value in {
        "@columns@": stages,
        "@throughput@": "".join(f"  - metrics/{name}.throughput.json\n" for name in speeds),
        "@plots@": plots,
    }.items():
        text = text.replace(f"{mark}\n", value)
    return text


def _column_stage(name: str) -> str:
    """The stage of a column with a section of its own."""
    from reelmill.pipelines.build.recipe_registry import COLUMN_RECIPES, load_recipe_class

    options = load_recipe_class(COLUMN_RECIPES[name])
    made_from_videos = not options(name=name, options=options.Options(), raw=".").reads
    stage = _template("column.template.yaml").replace("@column@", name)
    return stage.replace("@raw@\n", "      - ${scan.raw}\n" if made_from_videos else "").replace(
        "@raw_param@\n", "      - scan.raw\n" if made_from_videos else ""
    )


def project_files(project: Project, *, title: str) -> dict[str, str]:
    """Content of each of the project's files by its name."""
    readme = _template("README.template.md")
    for word, text in {"title": title, "raw": project.raw, "dataset": project.dataset}.items():
        readme = readme.replace(f"@{word}@", text)
    return {
        "params.yaml": params_text(project),
        "dvc.yaml": dvc_text(project),
        ".gitignore": _template("gitignore.txt"),
        ".dvcignore": _template("dvcignore.txt"),
        "README.md": readme,
    }


def _template(name: str) -> str:
    return (resources("reelmill.pipelines") / "templates" / name).read_text(encoding="utf-8")


def create(folder: str, project: Project, *, git: bool = True) -> list[str]:
    """Make a DVC project in ``folder``. On an error, all that was made is taken away again.

    Args:
        folder: new, or without any of the files that are to be made.
        project: what to write.
        git: True makes a git repository where ``folder`` is in none and git is installed; False leaves git
            alone.

    Returns:
        Names of the files made.

    Raises:
        UsageError: a file is there already, or this is no place for a project.
        BuildError: git or DVC failed.
    """
    root = Path(folder)
    there = next(place for place in (root.absolute(), *root.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise UsageError(f"cannot make a project in {folder}: {there} is not a folder")
    if not storage.is_url(project.raw) and root.resolve().is_relative_to((root / project.raw).resolve()):
        raise UsageError(f"{folder} lies in the folder of the videos: choose a place outside of it")
    contents = project_files(project, title=root.resolve().name)
    for name in [*contents, ".dvc"]:
        if os.path.lexists(root / name):
            raise UsageError(
                f"{root / name} is there already, and nothing is overwritten: choose another folder"
            )
    with _taken_back_on_error(root, [*contents, ".dvc"]) as made:
        root.mkdir(parents=True, exist_ok=True)
        _init_version_control(root, git=git, made=made)
        for name, text in contents.items():
            storage.write_bytes(str(root / name), text.encode())
    return list(contents)


@contextmanager
def _taken_back_on_error(root: Path, names: list[str]) -> Iterator[list[str]]:
    """Remove the named files, those that the block adds to the list, and the folders made, if it fails."""
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    made = list(names)
    try:
        yield made
    except BaseException:
        for name in made:
            path = root / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for folder in missing:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def _init_version_control(root: Path, *, git: bool, made: list[str]) -> None:
    """``git init`` where there is no repository yet, and ``dvc init`` to match."""
    flags: list[str] = ["--no-scm"]
    if git and shutil.which("git"):
        top = _git_top(root)
        if top is None:
            made.append(".git")
            _run(["git", "init", "-q"], root)
        flags = [] if top in (None, root.resolve()) else ["--subdir"]
    _run([sys.executable, "-m", "dvc", "init", "-q", *flags], root)
    no_scm = "    no_scm = True\n" if "--no-scm" in flags else ""
    storage.write_bytes(str(root / ".dvc" / "config"), (DVC_CONFIG + no_scm).encode())
    storage.write_bytes(str(root / ".dvcignore"), _template("dvcignore.txt").encode())
    if not no_scm:
        _run(["git", "add", "--", ".dvc/config", ".dvcignore"], root)  # as DVC did with its own


def _git_top(folder: Path) -> Path | None:
    """Root of the git repository that ``folder`` lies in, if it lies in one."""
    done = subprocess.run(
        ["git", "rev-parse", "--show-toplevel"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=INIT_TIMEOUT_S,
        check=False,
    )
    return Path(done.stdout.rstrip("\n")).resolve() if done.returncode == 0 else None


def _run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=INIT_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        words = [word for word in command if word not in (sys.executable, "-m", "-q")]
        raise BuildError(
            f"`{' '.join(words)}` failed in {folder}: {' '.join((done.stderr or done.stdout).split())}"
        )


def path_in_project(path: str, *, project: Path, relative_to: Path | None = None) -> str:
    """How a project names a file or folder that the command line named from where it was called.

    A URL stays, and so does an absolute path that is outside of the project; all else becomes relative to it.

    >>> path_in_project("/videos", project=Path("/home-of/set"))
    '/videos'
    >>> path_in_project("/home-of/set/raw", project=Path("/home-of/set"))
    'raw'
    >>> path_in_project("raw", project=Path("/home-of/set"), relative_to=Path("/home-of"))
    '../raw'
    """
    if storage.is_url(path):
        return path
    absolute = Path(os.path.abspath((relative_to or Path.cwd()) / path))
    below = absolute.is_relative_to(os.path.abspath(project))
    if os.path.isabs(path) and not below:
        return path
    return os.path.relpath(absolute, os.path.abspath(project))
