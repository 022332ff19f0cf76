"""Builds the compiled module; everything else stands in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=["nlct/_build.py:ffi"],
    # One wheel for CPython 3.9 and every later version.
    options={"bdist_wheel": {"py_limited_api": "cp39"}},
)
