"""What a session may be attached to."""

from __future__ import annotations

import os

import pytest

from mitml4.errors import UsageError
from mitml4.session.attach.attachment import Attachment
from mitml4.session.config import Attach


def test_the_network_of_this_host_is_refused_and_the_alternatives_are_named() -> None:
    with pytest.raises(UsageError, match="uses the network of this host") as caught:
        Attachment.open(Attach("pid", str(os.getpid())), trust=False)
    assert caught.value.hint
    assert "--iface" in caught.value.hint
    assert f"/proc/{os.getpid()}/cgroup" in caught.value.hint
