"""Among greenlets: eventlet and gevent replace threads and locks, and nlct works all the same."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.examples import telling

# Longer than anything here takes: what hangs is shown where it hangs.
LONG = 240

LIBRARIES = ("eventlet", "gevent")
# When everything is patched.
MOMENTS = (
    "before nlct is imported",
    "after nlct is imported",
    "after a Flusher was made",
    "after a Flusher was used",
)

PROGRAM = f"""
import faulthandler, sys
faulthandler.dump_traceback_later({LONG}, exit=True)
library, moment = sys.argv[1:]

def patch(now):
    if now != moment:
        return
    if library == "eventlet":
        import eventlet
        eventlet.monkey_patch()
    else:
        import gevent.monkey
        gevent.monkey.patch_all()

patch("before nlct is imported")
import nlct
from nlct.fill import fill
patch("after nlct is imported")
netns = nlct.Netns.scratch()
ct = nlct.Conntrack(netns)
flusher = nlct.Flusher(ct)
patch("after a Flusher was made")
assert flusher.flush_zone(1).complete
patch("after a Flusher was used")

if library == "eventlet":
    import eventlet, eventlet.patcher, eventlet.tpool
    start_thread = eventlet.patcher.original("_thread").start_new_thread
    give_way = eventlet.sleep

    def spawn(*call):
        return eventlet.spawn(*call).wait

    def in_pool(*call):
        return eventlet.tpool.execute(*call)
else:
    import gevent, gevent.monkey
    start_thread = gevent.monkey.get_original("_thread", "start_new_thread")
    give_way = gevent.sleep

    def spawn(*call):
        return gevent.spawn(*call).get

    def in_pool(function, *arguments):
        return gevent.get_hub().threadpool.apply(function, arguments)

answers = []
"""

STORM = """
def flush(number):
    zone = 1 + number % 20
    if number % 2:
        result = flusher.flush_zone(zone)
    else:
        result = flusher.delete(nlct.Filter(zone=zone, proto="udp"))
    answers.append(result.complete)

def green(number):
    give_way(0)
    flush(number)

def pooled(number):
    in_pool(flush, number)

for turn in range(1, 5):
    fill(ct, 200, 20)
    for number in range(4):
        start_thread(flush, (number,))
    waits = [spawn(work, number) for number in range(4, 12) for work in (green, pooled)]
    for wait in waits:
        wait()
    while len(answers) < 20 * turn:
        give_way(0.001)
    assert ct.count(zone=range(1, 13)) == 0
    assert ct.count() == 80
    ct.flush_all()
assert all(answers)
flusher.close()
print("end")
"""

# A handler that gives way while it has its lock, as one that writes to a pipe does.
LOG = """
import logging
stopped = [0]

class Slow(logging.Handler):
    def emit(self, record):
        stopped[0] += 1
        give_way(0.05)
        stopped[0] -= 1

logging.getLogger("nlct").addHandler(Slow())
logging.getLogger("nlct").setLevel(logging.DEBUG)

def log():
    logging.getLogger("nlct").warning("something")

for turn in range(5):
    wait = spawn(log)
    while not stopped[0]:
        give_way(0)
    nlct.capabilities._known.clear()
    answers.append(flusher.flush_zone(1).complete)
    answers.append(flusher.delete(nlct.Filter(proto="udp")).complete)
    wait()
assert all(answers)
print("end")
"""

FORK = """
import os, signal

def flush():
    answers.append(flusher.flush_zone(1).complete)

waits = [spawn(in_pool, flush) for _ in range(4)]
give_way(0)
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    assert flusher.flush_zone(1).complete
    flusher.close()
    os._exit(17)
for wait in waits:
    wait()
assert all(answers)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 17
print("end")
"""

TASKS = """
import asyncio

async def main():
    results = await asyncio.gather(*(flusher.aflush_zone(zone) for zone in range(1, 11)))
    return all(result.complete for result in results)

fill(ct, 200, 20)
start_thread(flusher.flush_zone, (11,))
assert asyncio.run(main())
assert not set(range(1, 11)) & set(ct.count_by("zone"))
print("end")
"""

# Reading holds up the greenlets of a thread while it waits, but works.
EVENTS = """
import asyncio

def read(number):
    while True:
        try:
            got.append(stream.get(timeout=0.01 if number % 2 else None))
        except ValueError:
            return

async def one():
    return await stream.__anext__()

got = []
stream = ct.events("new")
waits = [spawn(in_pool, read, number) for number in range(4)]
start_thread(read, (1,))
fill(ct, 200, 20)
while stream.received < 200 or len([item for item in got if item]) < 200:
    give_way(0.001)
stream.close()
for wait in waits:
    wait()
assert len({item.flow.id for item in got if item}) == 200
stream = ct.events("destroy")
ct.flush_all()
assert asyncio.run(one()).kind == "destroy"
assert len(list(iter(lambda: stream.get(timeout=0), None))) == 199
stream.close()
print("end")
"""

MIRROR = """
import asyncio, logging, os, signal
stopped = []

# As in the log above; it looks at the mirror as well.
class Slow(logging.Handler):
    def emit(self, record):
        stopped.append(record)
        mirror.state
        give_way(0.01)

mirror = nlct.Mirror(ct)
logging.getLogger("nlct").addHandler(Slow())
assert mirror.wait(60)

def lose(_):
    with mirror._keeper.lock.real:
        mirror._keeper.lose("a test says so")
    answers.append(mirror.flush_zone(1).complete is not None)

def flush(number):
    give_way(0)
    mirror.flush_zone(1 + number % 20)
    answers.append(sum(1 for _ in mirror.flows()) >= 0)

def plain(number):
    mirror.flush_zone(1 + number % 20)
    answers.append(mirror.count() >= 0)

for turn in range(1, 4):
    fill(ct, 200, 20)
    for number in range(4):
        start_thread(plain, (number,))
    waits = [spawn(lose, 0)]
    waits += [spawn(flush, number) for number in range(4, 8)]
    waits += [spawn(in_pool, plain, number) for number in range(8, 12)]
    for wait in waits:
        wait()
    while len(answers) < 13 * turn:
        give_way(0.001)
    assert ct.count(zone=range(1, 13)) == 0
    assert ct.count() == 80
    ct.flush_all()
assert all(answers) and stopped
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    assert mirror.wait(60)
    assert mirror.flush_zone(1).strategy == "mirror"
    mirror.close()
    os._exit(17)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 17

async def main():
    results = await asyncio.gather(*(mirror.aflush_zone(zone) for zone in range(1, 11)))
    return sum(result.deleted for result in results)

assert mirror.wait(60)
fill(ct, 200, 20)
assert asyncio.run(main()) == 100
mirror.close()
print("end")
"""

PROGRAMS = {
    **{"events": EVENTS, "a mirror": MIRROR},
    **{"a storm": STORM, "a log": LOG, "a fork": FORK, "tasks": TASKS},
}


@pytest.mark.usefixtures("netns")
# At this moment all that we have is there, and nothing of it patched.
@pytest.mark.parametrize("moment", telling(MOMENTS, {"after a Flusher was made"}))
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_nobody_waits_for_ever(program: str, library: str, moment: str) -> None:
    """Greenlets, threads of native pools and plain threads, whenever the patching came."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"MISSING: {library}")
    done = subprocess.run(
        # They say that they are deprecated, and that they should have come first.
        [sys.executable, "-W", "ignore", "-c", PROGRAM + PROGRAMS[program], library, moment],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=LONG + 40,
        check=False,
    )
    assert done.stdout.strip() == "end", done.stderr
    assert done.returncode == 0, done.stderr
    assert "were not greened" not in done.stderr
