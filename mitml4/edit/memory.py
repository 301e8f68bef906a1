"""What all edited connections of a session may hold together."""

from __future__ import annotations

from mitml4.dataclass import dataclass

__all__ = ["EditMemory"]


@dataclass(slots=True)
class EditMemory:
    """Bytes of bodies that are held back."""

    free: int

    def take(self, count: int) -> bool:
        """Whether there is room for so many more."""
        has_room = count <= self.free
        if has_room:
            self.free -= count
        return has_room

    def give_back(self, count: int) -> None:
        self.free += count
