"""Files that hold all of what is written to them, or what they held before."""

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

# As many as the kernel follows.
MAX_LINKS = 40
# Nothing can be made in the directory.
_CLOSED_DIRECTORY = (errno.EACCES, errno.EPERM, errno.EROFS)
# The file is another's, in a directory such as /tmp, or something is mounted on it.
_CANNOT_BE_REPLACED = (errno.EACCES, errno.EPERM, errno.EBUSY)


class _Target(NamedTuple):
    """A file to be replaced: its directory, its name there, and the old one, if there is one.

    ``temporary``: what the new one is called, until it takes the place.
    """

    directory: int
    name: str
    old: int | None
    temporary: str


@contextmanager
def written(path: str) -> Iterator[NamedOutput]:
    """Yield what to write to, for ``path`` to hold it once all is written.

    It is written beside the file that ``path`` leads to, and takes its place with the owner, the
    mode and the attributes of the old one; where these may not be given to another file, or the
    old one may not be replaced, it is copied into that. After an exception, those of SIGINT,
    SIGTERM and SIGHUP included, the old file is as it was and nothing else is left. What is no
    regular file, or lies where nothing can be made beside it, is written to directly.
    """
    with stoppable(), ExitStack() as stack:
        with named(path):
            target = _find(stack, path)
            new = None if target is None else _create(stack, target)
            file = _open(path) if new is None else new
            # The descriptor of a new file is needed later on.
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
    # It is closed already, or what went wrong before is what matters.
    with suppress(OSError):
        out.close()


def _find(stack: ExitStack, path: str) -> _Target | None:
    """Find what is to be replaced; None where that is not to be done."""
    followed = _follow(stack, path)
    old = None
    # Not link by link: for some in directories such as /tmp the kernel refuses to be led.
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        # If O_CREAT may not open another user's file there, do not replace it either.
        old = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        stack.callback(os.close, old)
    if followed is None:
        return None
    directory, name = followed
    # Or the owner and the mode of one file would be given to another.
    if old is not None and not _is(old, directory, name):
        raise OSError(errno.ESTALE, "another file has just replaced it")
    return _Target(directory, name, old, _temporary())


def _is(file: int, directory: int, name: str) -> bool:
    return os.path.samestat(os.fstat(file), os.stat(name, dir_fd=directory, follow_symlinks=False))


def _temporary() -> str:
    return f".nlct-{os.urandom(8).hex()}.tmp"


def _follow(stack: ExitStack, path: str) -> tuple[int, str] | None:
    """Follow links to a directory and a name in it; None where they do not lead to such."""
    directory = None
    for _ in range(MAX_LINKS):
        head, name = os.path.split(path)
        directory = os.open(head or ".", os.O_PATH | os.O_DIRECTORY, dir_fd=directory)
        stack.callback(os.close, directory)
        if name in ("", ".", ".."):
            return None
        # The links of /proc lead to what is open, whatever has its name now.
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
    """Refuse a standard stream that was closed: what has its number now is not what was meant."""
    if name.isdecimal() and os.path.samestat(os.fstat(directory), os.stat("/proc/self/fd")):
        require_open(int(name))


def _create(stack: ExitStack, target: _Target) -> int | None:
    """Create a file beside another; None where there may be none."""
    # Before it is there, and twice: a signal may come right afterwards, and in place of a removal.
    # It is only the first signal that does.
    stack.callback(_remove, target)
    stack.callback(_remove, target)
    # Nobody may read it who may not read the old one.
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
    # It was not made, or has taken its place.
    with suppress(OSError):
        os.unlink(target.temporary, dir_fd=target.directory)


def _put(new: int, target: _Target) -> None:
    """Let the new file, which is complete, take the place of the old one."""
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
    """Read the extended attributes, of which the access control list is one."""
    try:
        return {name: os.getxattr(file, name) for name in os.listxattr(file)}
    except OSError as exc:
        if exc.errno != errno.ENOTSUP:
            raise
        return {}


def _reserve(file: int, size: int) -> None:
    """Get room for so much, as long as nothing is lost yet."""
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
