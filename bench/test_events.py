"""The stream of events.

Events of new flows and of their ends are queued, half and half; then they are read, in processor
time, each contender those of its own. The bare C loop receives 64 a call and looks at nothing but
who sent them. nlct reads of each its kind, source and zone in a Python loop; or gets tables with
every column.
"""

from bench.turn import Sizes, Turn, case

EVENTS = Sizes((100_000,), quick=(2_000,))


@case("listener", "nlct.loop", "nlct.batches", rounds=25, events=EVENTS)
def test_events(turn: Turn, events: int) -> None:
    """Read events that are queued already."""
    turn.even(0)
    turn.peer.run("open" if turn.who == "listener" else "events")
    turn.lab.pass_by(events // 2)
    if turn.who == "listener":
        turn.run("receive", events)
    else:
        turn.run(f"events_{turn.does}", events)
    turn.peer.run("close")
