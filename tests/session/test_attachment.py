"""What a session may be attached to."""

from __future__ import annotations

import os

import pytest

from mitml4.errors import UsageError
from mitml4.session.attach.attachment import Attachment, _cgroup_path
from mitml4.session.config import Attach


def test_the_network_of_this_host_is_refused_and_the_alternatives_are_named() -> None:
    with pytest.raises(UsageError, match="uses the network of this host") as caught:
        Attachment.open(Attach("pid", str(os.getpid())), trust=False)
    assert caught.value.hint
    assert "--iface" in caught.value.hint
    assert "--cgroup" in caught.value.hint


@pytest.mark.parametrize(
    ("listing", "path"),
    [
        ("0::/docker/12f3\n", "/docker/12f3"),
        (
            "9:name=systemd:/docker/12f3\n0::/system.slice/docker-12f3.scope\n",
            "/system.slice/docker-12f3.scope",
        ),
        ("4:memory:/docker/12f3\n0::/\n", None),
        ("4:memory:/docker/12f3\n", None),
    ],
)
def test_the_cgroup_that_is_named_instead_is_of_version_2(listing: str, path: str | None) -> None:
    assert _cgroup_path(listing) == path
