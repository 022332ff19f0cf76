"""An agent that flushes the conntrack zone of each pod that is gone, told over a unix socket.

flush-on-delete.py SOCKET [--zones 1-65535]

Each line "flush ZONE" is answered by a line of JSON when it is done, "state" by what the mirror
knows of itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nlct

LOG = logging.getLogger("flush-on-delete")
AT_ONCE = 64  # so many callers share a dump where the mirror needs one; of each client, too


class Agent:
    """Flushes zones, as many at a time as ask; ``zones`` are those that it may flush."""

    def __init__(self, ct: nlct.Conntrack, zones: range, buffer: int) -> None:
        self._zones = zones
        self._flusher: nlct.Mirror | nlct.Flusher
        try:
            self._flusher = nlct.Mirror(ct, buffer=buffer)
        except nlct.UnsupportedError as exc:
            LOG.warning("every flush takes a dump: %s", exc)
            self._flusher = nlct.Flusher(ct)

    def close(self) -> None:
        """Stop listening to the kernel."""
        self._flusher.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the lines of one client, each when it is done, until the client hangs up."""
        tasks: set[asyncio.Task[None]] = set()
        with contextlib.suppress(ConnectionError, ValueError):  # it hung up, or talks nonsense
            # Half a line of a client that died may name another zone: "flush 12" of "flush 123".
            while (line := await reader.readline()).endswith(b"\n"):
                while len(tasks) >= AT_ONCE:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                task = asyncio.create_task(self._answer(line.decode(), writer))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)
        writer.close()

    async def _answer(self, line: str, writer: asyncio.StreamWriter) -> None:
        answer: dict[str, Any] = {"asked": line.strip()}
        try:
            answer.update(await self._do(line.split()))
        except (ValueError, OSError) as exc:
            answer["error"] = str(exc)
        LOG.info("%s", answer)
        writer.write(json.dumps(answer, default=sorted).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    async def _do(self, words: list[str]) -> dict[str, Any]:
        if words == ["state"]:
            mirror = self._flusher
            return mirror.state._asdict() if isinstance(mirror, nlct.Mirror) else {}
        if len(words) != 2 or words[0] != "flush" or not re.fullmatch("-?[0-9]{1,9}", words[1]):
            raise ValueError("say 'flush ZONE' or 'state'")
        return await self._flush(int(words[1]))

    async def _flush(self, zone: int) -> dict[str, Any]:
        if zone not in self._zones:
            raise ValueError(f"zone must be from {self._zones[0]} to {self._zones[-1]}, not {zone}")
        result = await self._flusher.aflush_zone(zone)
        return {"zone": zone, **result.to_dict()}


async def run(path: Path, agent: Agent) -> None:
    """Listen at a socket until SIGTERM or SIGINT; what has begun until then is done."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.set_default_executor(ThreadPoolExecutor(AT_ONCE))
    os.umask(0o177)  # only the owner may connect
    server = await asyncio.start_unix_server(agent.serve, path)
    LOG.info("listening at %s", path)
    await stop.wait()
    server.close()
    path.unlink(missing_ok=True)


def _zones(text: str) -> range:
    first, last = (int(end) for end in text.split("-"))
    if not 0 <= first <= last <= 65535:
        raise ValueError("zones must be from 0 to 65535")
    return range(first, last + 1)


def main() -> None:
    """Run the agent."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("socket", type=Path, help="where to listen")
    parser.add_argument("--zones", type=_zones, default="1-65535", help="which may be flushed")
    parser.add_argument("--buffer", type=int, default=64 << 20, help="bytes of events in the queue")
    parser.add_argument("--netns", help="a network namespace")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    with nlct.Conntrack(args.netns) as ct:
        agent = Agent(ct, args.zones, args.buffer)
        with contextlib.closing(agent):
            asyncio.run(run(args.socket, agent))


if __name__ == "__main__":
    main()
