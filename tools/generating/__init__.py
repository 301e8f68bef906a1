"""The pages that `tools/generate.py` makes."""
