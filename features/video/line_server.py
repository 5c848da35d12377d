"""A child process that answers questions, one line each, so that a file that hangs or kills it costs one clip."""

import contextlib
import resource
import selectors
import subprocess
from typing import Any


class Child:
    """Started when it is first asked; after a hang or a death the next question starts another.

    Args:
        command: program and arguments; it reads a line and writes a line.
        memory_bytes: address space that it may use.
        options: further arguments of ``subprocess.Popen``.
    """

    def __init__(self, command: list[str], *, memory_bytes: int, **options: Any) -> None:
        self._command, self._memory_bytes, self._options = command, memory_bytes, options
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: str, *, timeout_s: float) -> str:
        """The answer to a question of one line.

        Raises:
            TimeoutError: there was none in time; the child is ended.
            ChildProcessError: it died of the question; ``errno`` is its exit status, negative for a signal.
        """
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it died after its last answer: not this question's fault
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(question + "\n")
            process.stdin.flush()
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                readable = selector.select(timeout_s)
            if not readable:
                self.close()
                raise TimeoutError
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            status = process.wait()
            self.close()
            raise ChildProcessError(status, "the child process died")
        return answer

    def close(self) -> None:
        """End the child process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):  # of a question that it did not live to read
                        pipe.close()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, **self._options
        )
        memory = (self._memory_bytes, self._memory_bytes)
        resource.prlimit(self._process.pid, resource.RLIMIT_AS, memory)
        return self._process
