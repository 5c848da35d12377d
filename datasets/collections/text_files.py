"""Text files of a collection with one item per line."""

from collections.abc import Iterator
from dataclasses import dataclass

from reelmill.datasets import storage
from reelmill.datasets.errors import DatasetError, UsageError


@dataclass(frozen=True, slots=True)
class Line:
    """Line of a text file that is not blank."""

    path: str
    number: int
    """Counted from 1."""
    text: str
    """The line without surrounding white space."""

    def error(self, why: str) -> DatasetError:
        """Return an error with the position and text of the line."""
        return DatasetError(f"{self.path}, line {self.number}: {self.text!r} {why}")


def read_lines(path: str, *, fix: str) -> Iterator[Line]:
    """Yield the lines of a file in UTF-8, with or without a byte order mark, with any line ends.

    Args:
        path: path or URL of the file.
        fix: what to do if there is no such file, for the error message.

    Raises:
        UsageError: the file cannot be read.
        DatasetError: it is not UTF-8.
    """
    try:
        content = storage.read_bytes(path)
    except OSError as error:
        raise UsageError(f"cannot read {path!r} ({error.strerror or error}): {fix}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path!r} is not UTF-8: {error.reason} at byte {error.start}") from None
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines() also splits at U+2028
        if line.strip():
            yield Line(path, number, line.strip())


def read_labels(path: str) -> list[str]:
    """Read class names, one per line, in the order of their indices.

    Raises:
        UsageError: the file cannot be read.
        DatasetError: a class occurs twice, or there is none.
    """
    labels: dict[str, None] = {}
    for line in read_lines(path, fix="name a text file with one class per line"):
        if line.text in labels:
            raise line.error("occurs twice")
        labels[line.text] = None
    if not labels:
        raise DatasetError(f"{path!r} has no class: write one per line")
    return list(labels)
