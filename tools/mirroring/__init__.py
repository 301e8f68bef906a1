"""The parts of `tools/hello_mirroring.py`."""
