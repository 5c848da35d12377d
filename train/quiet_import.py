"""TensorFlow prints a page at import, before it can be asked not to."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from reelmill.datasets.errors import UsageError


@contextmanager
def quiet_import() -> Iterator[None]:
    """Import TensorFlow inside: its chatter is dropped, unless the import fails.

    Raises:
        UsageError: the extra ``train`` is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            yield
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("tensorflow", "keras"):
                raise
            raise UsageError(
                f"training needs {error.name}, which is not installed: pip install 'reelmill[train]'"
            ) from None
        except BaseException:
            chatter.seek(0)
            os.write(kept, chatter.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
