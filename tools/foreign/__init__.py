"""The parts of `tools/foreign_suites.py`."""
