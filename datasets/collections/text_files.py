"""The small text files that come with a collection: one thing a line."""

from collections.abc import Iterator
from dataclasses import dataclass

from reelmill.datasets import storage
from reelmill.datasets.errors import DatasetError, UsageError


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a list that is not blank."""

    path: str
    number: int
    """Counted from 1."""
    text: str
    """Without the line end and without blanks around it."""

    def error(self, why: str) -> DatasetError:
        """The error that says what is wrong with this line."""
        return DatasetError(f"{self.path}, line {self.number}: {self.text!r} {why}")


def read_lines(path: str, *, fix: str) -> Iterator[Line]:
    """The lines of a list; UTF-8 with or without a byte order mark, any line ends.

    Args:
        path: file or URL.
        fix: what to do where there is no such file, for the error message.

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
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines() would also cut at U+2028
        if line.strip():
            yield Line(path, number, line.strip())


def read_labels(path: str) -> list[str]:
    """Class names, one a line; a label's index is its place.

    Raises:
        UsageError: the file cannot be read.
        DatasetError: it names a class twice, or none.
    """
    labels: dict[str, None] = {}
    for line in read_lines(path, fix="name a text file with one class a line"):
        if line.text in labels:
            raise line.error("is named twice")
        labels[line.text] = None
    if not labels:
        raise DatasetError(f"{path!r} names no class: write one a line")
    return list(labels)
