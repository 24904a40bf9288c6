"""Benchmarks: what `make bench` runs. `python -m benchmarks --help` says how."""
