"""Programs under test begin as a user's do, whatever pytest itself was started with.

And nobody is hurried: how long an example takes is the machine's affair.
"""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "unhurried",
    deadline=None,
    max_examples=50,  # `make fuzz` tries many more
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unhurried")

os.umask(0o022)

# What is ignored is ignored in children too: nohup's SIGHUP, or SIGINT in a shell's background.
# What has a handler is at its default there (execve(2)), and does as little here.
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
for number in signal.valid_signals():
    if number not in IGNORED_BY_PYTHON and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)
