"""Which programs of another network come to trust the CA."""

from __future__ import annotations

import subprocess
import sys

import pytest

GROUPS = """
import sys
from mitml4.net.attach.programs import program_groups
from mitml4.net.attach.target import Target
groups, left_out = program_groups(Target.of_process(int(sys.argv[1])), ())
print(len(groups) + left_out)
"""


@pytest.mark.parametrize(("mounts", "count"), [((), 0), (("--mount",), 1)], ids=["host's", "own"])
def test_files_with_the_hosts_mounts_are_not_covered_by_a_session_with_others(
    mounts, count
) -> None:
    alone = ["unshare", "--net", *mounts, "sh", "-c", "echo; exec sleep 600"]
    with subprocess.Popen(alone, stdout=subprocess.PIPE) as program:
        try:
            program.stdout.readline()
            session = ["unshare", "--mount", sys.executable, "-c", GROUPS, str(program.pid)]
            assert int(subprocess.check_output(session)) == count
        finally:
            program.kill()
