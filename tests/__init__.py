"""Tests on the real kernel, each in a scratch network namespace of its own."""
