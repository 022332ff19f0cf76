"""The core by itself: C programs that drive it, under sanitizers, valgrind and a fuzzer."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "c"
# What the drivers exit with when no network namespace can be had.
EXIT_MISSING = 77


def need(*tools: str) -> None:
    """Skip where a tool is not installed."""
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"MISSING: {tool}")


def run(command: Sequence[str | Path]) -> str:
    """Run a program to its end. Fails the test, with all that it said, unless it succeeds."""
    done = subprocess.run(
        command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode == EXIT_MISSING:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs are built."""
    return tmp_path_factory.mktemp("core")


def make(build: Path, program: str) -> Path:
    """Build a program."""
    run(["make", f"-j{os.cpu_count()}", f"BUILD={build}", str(build / program)])
    return build / program


def need_sanitizers(build: Path, compiler: str, flags: str) -> None:
    """Skip where the compiler comes without the libraries of these sanitizers."""
    source = build / f"{compiler}.c"
    entry = "int LLVMFuzzerTestOneInput(void)" if "fuzzer" in flags else "int main(void)"
    source.write_text(f"{entry};{entry}{{return 0;}}")
    command = [compiler, f"-fsanitize={flags}", "-o", source.with_suffix(""), source]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"MISSING: the sanitizers {flags} of {compiler}")


@pytest.mark.parametrize("program", ["scripted", "driver"])
def test_core_under_sanitizers(program: str, build: Path) -> None:
    """Against a scripted kernel and the real one, ASan and UBSan find nothing."""
    need("make", "cc")
    need_sanitizers(build, "cc", "address,undefined")
    run([make(build, f"{program}-sanitized")])


@pytest.mark.exhaustive  # the same cases as under ASan
def test_threads_of_the_core_under_tsan(build: Path) -> None:
    """Against a scripted kernel, TSan finds no race."""
    need("make", "cc", "setarch")
    need_sanitizers(build, "cc", "thread")
    # TSan knows no address space as random as the latest kernels make it.
    run(["setarch", "-R", make(build, "scripted-threads")])


@pytest.mark.exhaustive  # the same cases as under ASan
@pytest.mark.parametrize("arguments", [["scripted"], ["driver", "--stay"]], ids=lambda a: a[0])
def test_core_under_valgrind(arguments: list[str], build: Path) -> None:
    """Against a scripted kernel and the real one, valgrind finds no error and no leak."""
    need("make", "cc", "valgrind")
    program = make(build, arguments[0])
    valgrind = ["valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full"]
    run([*valgrind, "--errors-for-leak-kinds=all", program, *arguments[1:]])


@pytest.mark.exhaustive  # the same parts as in test_wire.py and the scripted cases
@pytest.mark.parametrize(
    "part", ["messages", "delete", "load", "save", "arrow", "readahead", "mirror", "events"]
)
def test_fuzz_target_passes_its_corpus(part: str, build: Path) -> None:
    """Each input of the seed corpus, and a few thousand made from it, pass the fuzz target."""
    need("make", "clang")
    need_sanitizers(build, "clang", "fuzzer,address,undefined")
    fuzz = make(build, f"fuzz-{part}")
    found = build / "corpus" / part
    found.mkdir(parents=True)
    # Its own code for a crash is that of a program which lacks something.
    options = ["-runs=4000", "-seed=1", f"-artifact_prefix={build}/", "-error_exitcode=1"]
    said = run([fuzz, *options, found, f"corpus/{part}"])
    assert "DONE" in said
