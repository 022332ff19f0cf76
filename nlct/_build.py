"""The cffi builder: compiles csrc/ into the module nlct._nlct."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cffi

ROOT = Path(__file__).parent.parent
SOURCES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.c"))
HEADERS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.h"))


def binding() -> str:
    """Cut the declarations from the public header, so that the two cannot drift."""
    header = (ROOT / "csrc" / "nlct.h").read_text()
    return header.split("/* binding: begin */")[1].split("/* binding: end */")[0]


# What the compiler is told; tools/wheels tells it to another compiler.
OPTIONS: dict[str, Any] = {
    "sources": SOURCES,
    "depends": HEADERS,
    "include_dirs": ["csrc"],
    "define_macros": [("_GNU_SOURCE", None)],
    # Hidden, so that nothing in the host program can take the place of a function of the core.
    "extra_compile_args": [
        "-std=c11",
        "-O2",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-pthread",
    ],
    # setup.py adds what hardens the code, as far as the compiler knows it.
    "extra_link_args": ["-pthread", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"],
}

ffi = cffi.FFI()
ffi.cdef(binding())
ffi.set_source("nlct._nlct", '#include "nlct.h"', **OPTIONS, py_limited_api=True)
