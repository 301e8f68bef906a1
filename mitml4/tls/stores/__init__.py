"""The trust stores of a machine: installing the authority into them, and removing it."""
