"""Work in a child of this process, which may crash or hang."""

from __future__ import annotations

import faulthandler
import os
import pickle
import select
import signal
import sys
import time
import traceback
from typing import Any, Callable


class Child:
    """A child that does one thing and says what came of it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        sys.stdout.flush()
        self._reader, writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._reader)
            _work(work, writer)
        os.close(writer)

    def answer(self, patience: float) -> Any:
        """Wait for it. Raises ChildProcessError where it died, TimeoutError where it hangs."""
        data, hangs = self._read(time.monotonic() + patience)
        os.close(self._reader)
        if hangs:
            os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        if hangs:
            raise TimeoutError(f"it hangs for {patience} seconds")
        if os.WIFSIGNALED(status):
            raise ChildProcessError(f"killed by {signal.Signals(os.WTERMSIG(status)).name}")
        if os.WEXITSTATUS(status):
            raise ChildProcessError("a traceback in the child, see above")
        return pickle.loads(data)

    def _read(self, until: float) -> tuple[bytes, bool]:
        data = b""
        while True:
            ready, _, _ = select.select([self._reader], [], [], max(until - time.monotonic(), 0))
            part = os.read(self._reader, 1 << 20) if ready else b""
            data += part
            if not part:
                return data, not ready


def _work(work: Callable[[], Any], writer: int) -> None:
    faulthandler.enable()
    try:
        data = memoryview(pickle.dumps(work()))
        while data:
            data = data[os.write(writer, data) :]
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
