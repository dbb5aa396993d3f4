"""Measurements, each a command: ``python -m benchmarks.NAME``; see ``docs/speed.md``."""
