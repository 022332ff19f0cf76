"""Files that hold everything that was written to them, or else what they held before."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import BinaryIO, NamedTuple

from nlct.cli.output import NamedOutput, named
from nlct.cli.signals import stoppable, unstoppable
from nlct.cli.streams import require_open

# The kernel follows as many.
MAX_LINKS = 40
# The directory takes no new file.
_CLOSED_DIRECTORY = (errno.EACCES, errno.EPERM, errno.EROFS)
# The file is another user's, in a directory such as /tmp, or something is mounted on it.
_CANNOT_BE_REPLACED = (errno.EACCES, errno.EPERM, errno.EBUSY)


class _Target(NamedTuple):
    """A file to be replaced: its directory, its name there, and the old one, if there is one.

    ``temporary``: the name of the new file until it takes the old one's place.
    """

    directory: int
    name: str
    old: int | None
    temporary: str


@contextmanager
def written(path: str) -> Iterator[NamedOutput]:
    """Yield a file to write to; ``path`` holds its content once everything is written.

    It lies beside the file that ``path`` leads to, and takes that one's place with its owner, mode
    and attributes. If another file may not have these, or the old file may not be replaced, the
    content is copied into the old file. After an exception, also one of SIGINT, SIGTERM or SIGHUP,
    the old file is as it was and nothing else is left. What is no regular file, or lies in a
    directory that takes no new file, is written to directly.
    """
    with stoppable(), ExitStack() as stack:
        with named(path):
            target = _find(stack, path)
            new = None if target is None else _create(stack, target)
            file = _open(path) if new is None else new
            # _put() needs the descriptor of a new file.
            out = os.fdopen(file, "wb", closefd=new is None)
        stack.callback(_close, out)
        yield NamedOutput(out, path)
        with named(path):
            out.close()
            if target is not None and new is not None:
                _put(new, target)


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)


def _close(out: BinaryIO) -> None:
    # It is closed already, or an earlier error matters more.
    with suppress(OSError):
        out.close()


def _find(stack: ExitStack, path: str) -> _Target | None:
    """Find the file to replace; None if it is to be written to directly."""
    followed = _follow(stack, path)
    old = None
    # Not link by link: in directories such as /tmp the kernel refuses to follow some.
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        # If O_CREAT may not open another user's file there, do not replace it either.
        old = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        stack.callback(os.close, old)
    if followed is None:
        return None
    directory, name = followed
    # Otherwise one file's owner and mode would be given to another.
    if old is not None and not _is(old, directory, name):
        raise OSError(errno.ESTALE, "another file has just replaced it")
    return _Target(directory, name, old, _temporary())


def _is(file: int, directory: int, name: str) -> bool:
    return os.path.samestat(os.fstat(file), os.stat(name, dir_fd=directory, follow_symlinks=False))


def _temporary() -> str:
    return f".nlct-{os.urandom(8).hex()}.tmp"


def _follow(stack: ExitStack, path: str) -> tuple[int, str] | None:
    """Follow links to a directory and a name in it; None if they lead to none."""
    directory = None
    for _ in range(MAX_LINKS):
        head, name = os.path.split(path)
        directory = os.open(head or ".", os.O_PATH | os.O_DIRECTORY, dir_fd=directory)
        stack.callback(os.close, directory)
        if name in ("", ".", ".."):
            return None
        # A link in /proc leads to the open file, whatever has that file's name now.
        if _is_in_proc(directory):
            _require_open(directory, name)
            return None
        try:
            path = os.readlink(name, dir_fd=directory)
        except OSError:
            # It is no link, or is not there.
            return directory, name
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _is_in_proc(directory: int) -> bool:
    try:
        return os.fstat(directory).st_dev == os.stat("/proc/self/fd").st_dev
    except FileNotFoundError:
        return False


def _require_open(directory: int, name: str) -> None:
    """Refuse a standard stream that was closed: something else has its number now."""
    if name.isdecimal() and os.path.samestat(os.fstat(directory), os.stat("/proc/self/fd")):
        require_open(int(name))


def _create(stack: ExitStack, target: _Target) -> int | None:
    """Create the new file; None if the directory takes none."""
    # Before the file is there: a signal may come right after it is. And twice: a signal may come
    # instead of a removal. Only the first signal raises.
    stack.callback(_remove, target)
    stack.callback(_remove, target)
    # Only readers of the old file may read the new one.
    mode = 0o666 if target.old is None else 0o600
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    try:
        new = os.open(target.temporary, flags, mode, dir_fd=target.directory)
    except OSError as exc:
        if exc.errno not in _CLOSED_DIRECTORY:
            raise
        return None
    stack.callback(os.close, new)
    return new


def _remove(target: _Target) -> None:
    # It was never made, or has taken the old one's place.
    with suppress(OSError):
        os.unlink(target.temporary, dir_fd=target.directory)


def _put(new: int, target: _Target) -> None:
    """Let the complete new file take the place of the old one."""
    os.fsync(new)
    if target.old is None or _made_alike(new, target.old):
        ends = {"src_dir_fd": target.directory, "dst_dir_fd": target.directory}
        try:
            os.rename(target.temporary, target.name, **ends)
            return
        except OSError as exc:
            if target.old is None or exc.errno not in _CANNOT_BE_REPLACED:
                raise
    _copy(new, target.old)


def _made_alike(new: int, old: int) -> bool:
    """Give owner, mode and attributes to the new file; tell if that was allowed."""
    status = os.fstat(old)
    try:
        os.fchown(new, status.st_uid, status.st_gid)
        os.fchmod(new, stat.S_IMODE(status.st_mode))
        wanted, given = _attributes(old), _attributes(new)
        for name in given.keys() - wanted.keys():
            os.removexattr(new, name)
        for name in wanted:
            if wanted[name] != given.get(name):
                os.setxattr(new, name, wanted[name])
    except OSError:
        return False
    return True


def _attributes(file: int) -> dict[str, bytes]:
    """Read the extended attributes, among them the access control list."""
    try:
        return {name: os.getxattr(file, name) for name in os.listxattr(file)}
    except OSError as exc:
        if exc.errno != errno.ENOTSUP:
            raise
        return {}


def _reserve(file: int, size: int) -> None:
    """Reserve room while nothing is lost yet."""
    before = os.fstat(file).st_size
    try:
        os.posix_fallocate(file, 0, max(size, 1))
    except OSError:
        os.ftruncate(file, before)
        raise


def _copy(new: int, old: int) -> None:
    _reserve(old, os.fstat(new).st_size)
    with (
        unstoppable(),
        open(new, "rb", closefd=False) as source,
        open(old, "wb", closefd=False) as out,
    ):
        source.seek(0)
        shutil.copyfileobj(source, out)
        out.truncate()
        out.flush()
        os.fsync(old)
