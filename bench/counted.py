"""`python -P counted.py FILE -m mitml4 …`: count the calls of a session with cProfile.

`python -m cProfile` opens its file at the end, which a session may not do any more.
"""

from __future__ import annotations

import cProfile
import marshal
import runpy
import sys
from pathlib import Path


def main() -> None:
    path, _, module, *arguments = sys.argv[1:]
    with Path(path).open("wb") as file:
        sys.argv = [module, *arguments]
        profile = cProfile.Profile()
        profile.enable()
        try:
            runpy.run_module(module, run_name="__main__")
        finally:
            profile.create_stats()
            marshal.dump(profile.stats, file)


if __name__ == "__main__":
    main()
