"""``nlct dump --output FILE``: the file holds the whole dump, or what it held before."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

pytest.importorskip("click", reason="MISSING: click, which nlct[cli] brings")
pytest.importorskip("rich", reason="MISSING: rich, which nlct[cli] brings")

import nlct
from nlct.cli import files
from nlct.cli.files import written
from nlct.fill import fill
from tests.support.command import in_shell, nlct_, process, refused
from tests.support.processes import NOBODY

OLD = "what was there\n"
FORMATS = ("text", "json", "arrow", "parquet")
FLOWS = 10


@pytest.fixture
def flows(ct: nlct.Conntrack) -> int:
    """A table with a few flows, and their number."""
    fill(ct, FLOWS, 1)
    return FLOWS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with something in it, alone in its directory."""
    path = tmp_path / "there" / "flows"
    path.parent.mkdir()
    path.write_text(OLD)
    return path


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that everybody may write to."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


def beside(file: Path) -> list[str]:
    """What is in the directory of a file."""
    return sorted(os.listdir(file.parent))


def need_arrow(form: str) -> None:
    """Skip without what a format takes."""
    if form in ("arrow", "parquet"):
        for name in ("pyarrow", "nanoarrow"):
            pytest.importorskip(name, reason=f"MISSING: {name}, which nlct[parquet] brings")


# On failure the old file stands ------------------------------------------------------------------

# Everything is imported while it may be read.
AS_NOBODY = f"""
import json, os, sys, nlct, nlct.cli.commands.dump, nlct.cli.files, nlct.conntrack, nlct.fill
from nlct.cli import commands
try:
    import nlct.cli.formats; nlct.cli.formats.require_arrow(); import pyarrow.parquet
except Exception: pass
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
"""


def as_nobody(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run Python code without privilege."""
    words = (sys.executable, "-c", AS_NOBODY + code, *args)
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("mode", [0o777, 0o555])
def test_a_dump_without_privilege_leaves_the_file(shared: Path, form: str, mode: int) -> None:
    """Also where nothing can be made beside it."""
    need_arrow(form)
    file = shared / "flows"
    file.write_text(OLD)
    file.chmod(0o666)
    shared.chmod(mode)
    args = ("dump", "--zone", "2", "--format", form, "--output", str(file))
    done = as_nobody("commands.cli.main(sys.argv[1:])", *args)
    assert done.returncode == 3, done.stderr
    assert "CAP_NET_ADMIN" in done.stderr
    assert file.read_text() == OLD
    assert beside(file) == ["flows"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_dump_that_does_not_fit_leaves_the_file(
    ct: nlct.Conntrack, where: str, file: Path, form: str
) -> None:
    """As on a full disk; the error names the file."""
    need_arrow(form)
    fill(ct, 20000, 10)

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))

    args = ("dump", where, "--format", form, "--output", str(file))
    with process(*args, preexec_fn=small) as dump:
        output, error = dump.communicate(timeout=240)
    assert (dump.returncode, output) == (1, b"")
    assert error.decode() == f"nlct: {file}: File too large\n"
    assert file.read_text() == OLD
    assert beside(file) == ["flows"]


# A dump that has written something and goes on for ever.
ENDLESS = """
import sys, time, nlct, nlct.cli
whole = nlct.Conntrack.dump_text
def endless(*args, **how):
    yield from whole(*args, **how)
    yield b"x" * 100000
    print("written", flush=True)
    while True: time.sleep(60)
nlct.Conntrack.dump_text = endless
nlct.cli.main()
"""


@contextmanager
def endless(where: str, file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A dump that has come half the way, and ends with the test at the latest."""
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, "dump", where, "--output", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as dump:
        try:
            assert dump.stdout is not None
            assert dump.stdout.readline() == b"written\n"
            yield dump
        finally:
            dump.kill()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.usefixtures("flows")
def test_a_dump_that_is_ended_leaves_the_file(
    where: str, file: Path, number: signal.Signals, code: int
) -> None:
    """And nothing else."""
    with endless(where, file) as dump:
        assert file.read_text() == OLD
        dump.send_signal(number)
        _, error = dump.communicate(timeout=240)
    assert (dump.returncode, error.strip()) == (code, b"")
    assert file.read_text() == OLD
    assert beside(file) == ["flows"]


@pytest.mark.usefixtures("flows")
def test_more_signals_change_nothing(where: str, file: Path) -> None:
    """Whatever they find going on."""
    with endless(where, file) as dump:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) * 3:
            dump.send_signal(number)
        dump.communicate(timeout=240)
    assert dump.returncode != 0
    assert file.read_text() == OLD
    assert beside(file) == ["flows"]


@pytest.mark.usefixtures("flows")
def test_a_dump_that_is_killed_leaves_the_file(where: str, file: Path) -> None:
    """What it leaves beside it, nobody else may read, and its name says what it is."""
    with endless(where, file) as dump:
        dump.kill()
    assert file.read_text() == OLD
    left, name = beside(file)
    assert name == "flows"
    assert re.fullmatch(r"\.nlct-[0-9a-f]{16}\.tmp", left)
    assert stat.S_IMODE((file.parent / left).stat().st_mode) == 0o600


def test_after_an_error_there_is_no_new_file(tmp_path: Path) -> None:
    """Where there was none."""

    def fail() -> None:
        with written(str(tmp_path / "new")) as out:
            out.write(b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert os.listdir(tmp_path) == []


# What takes the place of the old file ------------------------------------------------------------


def dumped(where: str, file: Path) -> None:
    """Dump into a file, which then holds all of it."""
    done = nlct_("dump", where, "--output", str(file))
    assert (done.exit_code, done.output) == (0, "")
    assert len(file.read_text().splitlines()) == FLOWS


@pytest.mark.usefixtures("flows")
def test_a_file_keeps_its_mode(where: str, file: Path) -> None:
    """A new one has what the umask leaves."""
    for mode in (0o640, 0o600, 0o666, 0o444 | stat.S_IWUSR):
        file.chmod(mode)
        dumped(where, file)
        assert stat.S_IMODE(file.stat().st_mode) == mode
    new = file.with_name("new")
    before = os.umask(0o027)
    try:
        dumped(where, new)
    finally:
        os.umask(before)
    assert stat.S_IMODE(new.stat().st_mode) == 0o640
    assert beside(file) == ["flows", "new"]


@pytest.mark.usefixtures("root", "flows")
def test_a_file_keeps_its_owner(where: str, file: Path) -> None:
    """Whoever writes to it."""
    os.chown(file, NOBODY, NOBODY - 1)
    dumped(where, file)
    assert (file.stat().st_uid, file.stat().st_gid) == (NOBODY, NOBODY - 1)


def access_list() -> bytes:
    """Others' rights: the owner reads and writes, user 1234 reads, the group may do nothing."""
    entries = ((1, 6, -1), (2, 4, 1234), (4, 0, -1), (16, 4, -1), (32, 0, -1))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


@pytest.mark.parametrize(
    ("name", "value"), [("user.origin", b"here"), ("system.posix_acl_access", access_list())]
)
@pytest.mark.usefixtures("flows")
def test_a_file_keeps_its_attributes(where: str, file: Path, name: str, value: bytes) -> None:
    """Its access control list among them: with the mode alone, the group would get its mask."""
    try:
        os.setxattr(file, name, value)
    except OSError as exc:
        pytest.skip(f"MISSING: a file system with {name}: {exc}")
    dumped(where, file)
    assert os.getxattr(file, name) == value


@pytest.mark.usefixtures("flows")
def test_a_file_does_not_inherit_what_it_did_not_have(where: str, file: Path) -> None:
    """Its directory would give an access control list to every new file."""
    try:
        os.setxattr(file.parent, "system.posix_acl_default", access_list())
    except OSError as exc:
        pytest.skip(f"MISSING: a file system with access control lists: {exc}")
    dumped(where, file)
    assert "system.posix_acl_access" not in os.listxattr(file)


@pytest.mark.usefixtures("flows")
def test_links_are_followed(where: str, file: Path) -> None:
    """They stay links, also those that led nowhere; another name of the file keeps its content."""
    directory = file.parent.parent
    (directory / "link").symlink_to("there/second")
    (file.parent / "second").symlink_to("flows")
    os.link(file, directory / "name")
    dumped(where, directory / "link")
    assert len(file.read_text().splitlines()) == FLOWS
    assert (directory / "name").read_text() == OLD
    (directory / "dangling").symlink_to(file.parent / "new")
    dumped(where, directory / "dangling")
    assert len((file.parent / "new").read_text().splitlines()) == FLOWS
    assert (directory / "dangling").is_symlink()
    assert (directory / "link").is_symlink()
    assert beside(file) == ["flows", "new", "second"]
    (directory / "circle").symlink_to("circle")
    assert "circle" in refused(nlct_("dump", where, "--output", str(directory / "circle")), 1)


@pytest.mark.usefixtures("root", "flows")
def test_a_link_that_the_kernel_does_not_follow_is_not_followed(where: str, file: Path) -> None:
    """Another's, in a directory such as /tmp."""
    if Path("/proc/sys/fs/protected_symlinks").read_text() != "1\n":
        pytest.skip("MISSING: fs.protected_symlinks")
    sticky = file.parent.parent / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    for target in (file, file.with_name("new")):
        link = sticky / target.name
        link.symlink_to(target)
        os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
        assert str(link) in refused(nlct_("dump", where, "--output", str(link)), 1)
    assert file.read_text() == OLD
    assert beside(file) == ["flows"]


@pytest.mark.usefixtures("flows")
def test_a_relative_name_and_a_long_one(
    where: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any name that a file may have is one."""
    monkeypatch.chdir(file.parent)
    dumped(where, Path("flows"))
    dumped(where, Path("n" * 255))
    assert beside(file) == ["flows", "n" * 255]


def test_two_at_once(file: Path) -> None:
    """Who ends last has its way, and neither is mixed with the other."""
    with written(str(file)) as first:
        first.write(b"first")
        with written(str(file)) as second:
            second.write(b"second, and longer")
            assert file.read_text() == OLD
        assert file.read_text() == "second, and longer"
    assert file.read_text() == "first"
    assert beside(file) == ["flows"]


def test_where_no_file_can_be(where: str, file: Path) -> None:
    """The error names what was given."""
    for nowhere in (file / "flows", file.parent / "no" / "flows", "/proc/nlct"):
        assert f"{nowhere}: " in refused(nlct_("dump", where, "--output", str(nowhere)), 1)
    for directory in (f"{file.parent}", f"{file.parent}/", f"{file.parent}/."):
        assert directory in refused(nlct_("dump", where, "--output", directory), 2)
    assert f"{file}/: " in refused(nlct_("dump", where, "--output", f"{file}/"), 1)
    assert beside(file) == ["flows"]


def test_a_file_that_may_not_be_written_is_not_replaced(shared: Path) -> None:
    """Though its directory may be."""
    file = shared / "flows"
    file.write_text(OLD)
    file.chmod(0o444)
    done = as_nobody(WRITE, str(file))
    assert "PermissionError" in done.stderr
    assert file.read_text() == OLD
    assert beside(file) == ["flows"]


# What is written to directly ---------------------------------------------------------------------

WRITE = """
from nlct.cli import files
from nlct.cli.files import written
with written(sys.argv[1]) as out:
    out.write(b"new")
    print(sorted(os.listdir(os.path.dirname(sys.argv[1]))))
"""


@pytest.mark.usefixtures("flows")
def test_what_is_no_file_is_written_to(where: str, file: Path) -> None:
    """A FIFO, a device, what is open already."""
    fifo = file.with_name("fifo")
    os.mkfifo(fifo)
    with process("dump", where, "--output", str(fifo)) as dump:
        assert len(fifo.read_text().splitlines()) == FLOWS
    assert dump.returncode == 0
    assert fifo.is_fifo()
    link = file.with_name("link")
    link.symlink_to("/dev/null")
    for path in ("/dev/null", str(link)):
        done = nlct_("dump", where, "--output", path)
        assert (done.exit_code, done.output) == (0, "")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert refused(nlct_("dump", where, "--output", "/dev/full"), 1).startswith("nlct: /dev/full: ")
    assert beside(file) == ["fifo", "flows", "link"]


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.usefixtures("flows")
def test_a_descriptor_is_written_to(where: str, file: Path, path: str) -> None:
    """The very file that is open there, whatever its name is now."""
    if path == "link":
        link = file.parent.parent / "link"
        link.symlink_to("/dev/stdout")
        path = str(link)
    number = file.stat().st_ino
    assert in_shell(f">>{file}", "dump", where, "--output", path) == (0, "", "")
    assert file.stat().st_ino == number
    assert len(file.read_text().splitlines()) == FLOWS
    code, output, _ = in_shell("", "dump", where, "--output", path)
    assert (code, len(output.splitlines())) == (0, FLOWS)
    assert beside(file) == ["flows"]


def test_where_nothing_can_be_made_the_file_is_written_to(shared: Path) -> None:
    """And keeps what it is."""
    file = shared / "flows"
    file.write_text(OLD)
    file.chmod(0o666)
    number = file.stat().st_ino
    shared.chmod(0o555)
    done = as_nobody(WRITE, str(file))
    assert (done.returncode, done.stdout) == (0, "['flows']\n"), done.stderr
    assert (file.read_text(), file.stat().st_ino) == ("new", number)


@pytest.mark.parametrize("mode", [0o777, 0o1777])
@pytest.mark.usefixtures("root")
def test_a_file_whose_owner_cannot_be_kept_is_copied_into(shared: Path, mode: int) -> None:
    """When all is there: somebody else's, that we may write to."""
    file = shared / "flows"
    file.write_text(OLD)
    file.chmod(0o666)
    number = file.stat().st_ino
    # In /tmp the kernel lets nobody have it.
    may = mode == 0o777 or Path("/proc/sys/fs/protected_regular").read_text() == "0\n"
    shared.chmod(mode)
    done = as_nobody(WRITE, str(file))
    if may:
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r"\['\.nlct-[0-9a-f]{16}\.tmp', 'flows'\]\n", done.stdout)
    assert file.read_text() == ("new" if may else OLD)
    assert (file.stat().st_ino, file.stat().st_uid) == (number, 0)
    assert beside(file) == ["flows"]


def test_a_full_disk_leaves_what_is_mounted(ct: nlct.Conntrack, where: str, tmp_path: Path) -> None:
    """There is room for the dump beside the old file, but not in its place as well."""
    if not (shutil.which("unshare") and shutil.which("mount")) or os.geteuid() != 0:
        pytest.skip("MISSING: root with unshare(1) and mount(8)")
    fill(ct, 3000, 1)
    code = """
cd "$0" && mount -t tmpfs -o size=700k none . && cd "$0"
head -c 200000 /dev/zero | tr '\\0' O > f
mount --bind f f
"$@" --output f && exit 9
tr -d O < f | head -c 1
ls -A | wc -l
stat -c %s f
"""
    nlct_dump = (sys.executable, "-m", "nlct", "dump", where)
    words = ("unshare", "-m", "sh", "-c", code, str(tmp_path), *nlct_dump)
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)
    assert "No space left" in done.stderr
    assert done.stdout.split() == ["1", "200000"]


def test_a_path_that_leads_elsewhere_in_between_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the owner and the mode of one file would be given to another."""
    for name, mode in (("open", 0o666), ("closed", 0o600)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "secret").write_text(OLD)
        (tmp_path / name / "secret").chmod(mode)
    link = tmp_path / "link"
    link.symlink_to("open")
    follow = files._follow

    def late(stack: ExitStack, path: str) -> tuple[int, str] | None:
        found = follow(stack, path)
        link.unlink()
        link.symlink_to("closed")
        return found

    monkeypatch.setattr(files, "_follow", late)
    with pytest.raises(OSError, match="replaced"), written(str(link / "secret")) as out:
        out.write(b"new")
    secret = tmp_path / "closed" / "secret"
    assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode)) == (OLD, 0o600)
    assert beside(secret) == ["secret"]


@pytest.mark.usefixtures("root", "flows")
def test_a_file_that_is_mounted_is_copied_into(where: str, file: Path) -> None:
    """As containers have them."""
    if not (shutil.which("unshare") and shutil.which("mount")):
        pytest.skip("MISSING: unshare(1) and mount(8)")
    mounted = file.with_name("mounted")
    mounted.write_text("")
    code = 'mount --bind "$0" "$1" && shift && exec "$@"'
    nlct_dump = (sys.executable, "-m", "nlct", "dump", where, "--output", str(mounted))
    words = ("unshare", "-m", "sh", "-c", code, str(file), str(mounted), *nlct_dump)
    subprocess.run(words, check=True, timeout=240)
    assert len(file.read_text().splitlines()) == FLOWS
    assert mounted.read_text() == ""
    assert beside(file) == ["flows", "mounted"]
