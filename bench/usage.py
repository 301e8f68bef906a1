"""Run a command and report its resources: seconds, CPU seconds, and its maximum memory.

Run as a script (standard library only), so that the command is the child of a small process: on
Linux, a command's ru_maxrss includes the memory of the process that starts it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def main() -> int:
    output, *argv = sys.argv[1:]
    with open(output, "wb") as out:
        started = time.perf_counter()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    print(
        json.dumps(
            {
                "exit": process.returncode,
                "seconds": seconds,
                "cpu_s": used.ru_utime + used.ru_stime,
                "max_rss_bytes": used.ru_maxrss * 1024,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
