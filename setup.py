"""Builds the compiled module; everything else stands in pyproject.toml."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

# What hardens the module: of each, the first that the compiler takes. What its flags speak of
# already, as those of a distribution do, is left to them.
HARDENING = {
    "_FORTIFY_SOURCE": ["-D_FORTIFY_SOURCE=3", "-D_FORTIFY_SOURCE=2"],
    "stack-protector": ["-fstack-protector-strong"],
    "stack-clash-protection": ["-fstack-clash-protection"],
    "cf-protection": ["-fcf-protection"],  # x86
    "branch-protection": ["-mbranch-protection=standard"],  # arm64
}

ABI3 = {"bdist_wheel": {"py_limited_api": "cp39"}}


class Build(build_ext):
    """Hardens the module, and keeps this machine's paths out of it."""

    def build_extensions(self) -> None:
        """Set the flags, and build."""
        given = " ".join(self.compiler.compiler_so)
        for word, flags in HARDENING.items():
            known = [flag for flag in flags if word not in given and self._knows(flag, word)]
            for extension in self.extensions:
                extension.extra_compile_args += known[:1]
        # Where the interpreter that builds it found its libraries is nothing to a module that needs
        # the C library alone.
        self.compiler.linker_so = [
            part
            for part in self.compiler.linker_so
            if not part.startswith(("-Wl,-rpath,", "-Wl,-rpath="))
        ]
        super().build_extensions()

    def _knows(self, flag: str, word: str) -> bool:
        """Tell if the compiler takes a flag, and says nothing about it."""
        command = [*self.compiler.compiler_so, "-O2", flag, "-fsyntax-only", "-x", "c", "-"]
        source = "#include <string.h>\n"
        done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
        return done.returncode == 0 and word not in done.stderr


# Man pages and completion files, where tools/share has made them: in each source distribution.
SHARE = sorted(path for path in Path("share").rglob("*") if path.is_file())

setup(
    cffi_modules=["nlct/_build.py:ffi"],
    data_files=[(str(path.parent), [str(path)]) for path in SHARE],
    cmdclass={"build_ext": Build},
    # One wheel for CPython 3.9 and every later version; a free-threaded one needs its own.
    options={} if sysconfig.get_config_var("Py_GIL_DISABLED") else ABI3,
)
