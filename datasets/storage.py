"""Paths and URLs: the only place that opens, lists, moves or deletes files of a dataset.

A plain path goes to the operating system. Anything with a scheme (``gs://``, ``s3://``, ``hdfs://``) goes
through Apache Beam's FileSystems, which is imported only then: a training job on local shards never pays
for Beam.
"""

import contextlib
import errno
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast


def is_url(path: str) -> bool:
    """Whether ``path`` names an object store rather than a local file.

    >>> is_url("gs://bucket/set"), is_url("data/set")
    (True, False)
    """
    return "://" in path


def _beam() -> Any:
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


def _uncompressed() -> str:
    from apache_beam.io.filesystem import CompressionTypes

    return cast("str", CompressionTypes.UNCOMPRESSED)


def join(base: str, *parts: str) -> str:
    """Join path components with ``/``; works for URLs too.

    >>> join("gs://bucket/set/", "frames", "index.parquet")
    'gs://bucket/set/frames/index.parquet'
    """
    return "/".join([base.rstrip("/") or base, *(p.strip("/") for p in parts)])


def open_read(path: str) -> BinaryIO:
    """Open ``path`` for reading bytes; seekable. Raises FileNotFoundError where there is no such file."""
    if not is_url(path):
        return cast("BinaryIO", io.open(path, "rb"))  # noqa: UP020 - the one bare open of the project
    if not exists(path):  # some stores open anything and complain later, each in its own words
        raise _not_found(path)
    return cast("BinaryIO", _beam().open(path, compression_type=_uncompressed()))


def open_write(path: str) -> BinaryIO:
    """Open ``path`` for writing bytes, making its folder where that is a local one."""
    if not is_url(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return cast("BinaryIO", io.open(path, "wb"))  # noqa: UP020
    return cast("BinaryIO", _beam().create(path, compression_type=_uncompressed()))


def read_bytes(path: str) -> bytes:
    """The whole content of a small file."""
    with open_read(path) as file:
        return file.read()


def write_bytes(path: str, content: bytes) -> None:
    """Write a small file as :func:`open_atomic` does."""
    with open_atomic(path) as file:
        file.write(content)


@contextlib.contextmanager
def open_atomic(path: str) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` when the block ends without an error.

    A reader sees the old content or the new, never half of it; after an error nothing is left behind.
    """
    temporary = temporary_name(path)
    try:
        with open_write(temporary) as file:
            yield file
        rename(temporary, path)
    except BaseException:
        remove(temporary)
        raise


def temporary_name(path: str) -> str:
    """Return a path in the folder of ``path`` that no other process uses, as ``.<name>.<unique>.tmp``."""
    folder, _, name = path.rpartition("/")
    unique = f".{name}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
    return f"{folder}/{unique}" if folder or path.startswith("/") else unique


def _not_found(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def exists(path: str) -> bool:
    """Whether there is a file or folder at ``path``; an object store has no folders, only files."""
    return os.path.lexists(path) if not is_url(path) else bool(_beam().exists(path))


def size(path: str) -> int:
    """Length of a file in bytes. Raises FileNotFoundError where there is no such file."""
    if not is_url(path):
        return os.stat(path).st_size
    if not exists(path):
        raise _not_found(path)
    return int(_beam().get_filesystem(path).size(path))


def modified_ns(path: str) -> int:
    """When a local file was last changed, in nanoseconds; an object's time of upload for a URL."""
    if not is_url(path):
        return os.stat(path).st_mtime_ns
    return int(_beam().get_filesystem(path).last_updated(path) * 1_000_000_000)


def resolve(root: str, path: str) -> str:
    """Where ``path`` lies below ``root``; a URL stands for itself.

    >>> resolve("raw", "run/a.mp4"), resolve("raw", "gs://bucket/a.mp4")
    ('raw/run/a.mp4', 'gs://bucket/a.mp4')
    """
    return path if is_url(path) else join(root, path)


def list_names(folder: str) -> list[str]:
    """Sorted names directly inside ``folder``; empty where there is no such folder."""
    if not is_url(folder):
        return sorted(os.listdir(folder)) if Path(folder).is_dir() else []
    prefix = folder.rstrip("/") + "/"
    try:
        # FileSystems.match takes patterns, which nothing can quote; this is what it calls with a literal prefix
        found = [file.path for file in _beam().get_filesystem(folder)._list(prefix)]
    except OSError:  # a store with real folders complains where there is none
        if exists(folder):
            raise
        return []
    return sorted({path[len(prefix) :].split("/")[0] for path in found if path.startswith(prefix)} - {""})


def make_folder(folder: str) -> None:
    """Make a folder and its parents; object stores need none."""
    if not is_url(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
    elif _beam().get_filesystem(folder).has_dirs() and not exists(folder):
        _beam().mkdirs(folder)


def rename(source: str, target: str) -> None:
    """Move a file, replacing the target."""
    if not is_url(target):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
        return
    if (
        _beam().get_filesystem(target).has_dirs()
    ):  # object stores replace the target in one step, others refuse to
        make_folder(target.rpartition("/")[0])
        if exists(target):
            _delete(target)
    _beam().rename([source], [target])


def remove(path: str) -> None:
    """Delete a file if it is there."""
    if not is_url(path):
        Path(path).unlink(missing_ok=True)
    elif exists(path):
        _delete(path)


def _delete(url: str) -> None:
    """Delete one file and no other: some stores take the name as a pattern, some as it is."""
    quoted = "".join("[\\[]" if c == "[" else f"[{c}]" if c in "*?" else c for c in url)
    if quoted != url:
        with contextlib.suppress(OSError):
            _beam().delete([quoted])
    if exists(url):
        _beam().delete([url])


def remove_folder(folder: str) -> None:
    """Delete a folder and all that is in it, if it is there."""
    if not is_url(folder):
        if Path(folder).is_dir():
            shutil.rmtree(folder)
    elif list_names(folder):
        _beam().delete([folder.rstrip("/") + "/"])


@contextlib.contextmanager
def local_file(path: str) -> Iterator[str]:
    """A local path with the content of ``path``: itself, or a copy of a remote file for as long as needed.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not is_url(path):
        if not os.path.exists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        yield path
        return
    suffix = os.path.splitext(path)[1]
    with tempfile.NamedTemporaryFile(prefix="reelmill-", suffix=suffix) as copy:
        with open_read(path) as source:
            shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        yield copy.name
