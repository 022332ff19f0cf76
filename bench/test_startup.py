"""Starting each tool.

From the start of its process, through `nsenter` into the namespace, until it is ready for work:
sockets open, and for nlct also the kernel probed. conntrack, Open vSwitch's tool and the command
`nlct` are started here with nothing to do; they are started for each operation, and that time is
part of their times everywhere else. The import and the commands of nlct are those of an installed
package, whose bytecode is there, with Python's option -I and in an empty table.
"""

from bench.peers import Answer
from bench.turn import Turn, case

STAY = ("floor", "nlct", "nfct", "pyroute2")
START = ("nlct-command", "conntrack", "ovs")


@case(*STAY, *START, rounds=25)
def test_startup(turn: Turn) -> None:
    """Start."""
    if turn.who in START:
        turn.run("start")
    else:
        with turn.fresh() as program:
            turn.record(lambda: Answer(program.start_up, {}))


@case("python", "python.needs", "nlct-command", rounds=25)
def test_import(turn: Turn) -> None:
    """Import of nlct: all of its public names."""
    if turn.does:
        turn.run("import", "_cffi_backend, ipaddress, socket")
    elif turn.who == "python":
        turn.run("start")
    else:
        turn.run("import")


@case("python", "nlct-command", rounds=25, command=("flush", "count", "dump"))
def test_command(turn: Turn, command: str) -> None:
    """Commands beside a Python that imports click and cffi's backend."""
    turn.even(0)
    if turn.who == "python":
        turn.run("import", "click, _cffi_backend")
    else:
        turn.run(command)
