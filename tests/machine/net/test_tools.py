"""nft looks at the kernel's rules first, which only root sees."""

from __future__ import annotations

import pytest

from mitml4.errors import MachineError
from mitml4.net.tools import run_nft


async def test_nft_complains_in_its_own_words() -> None:
    with pytest.raises(MachineError, match=r"^nft: syntax error, unexpected"):
        await run_nft("--check", "junk")
