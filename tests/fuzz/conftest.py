"""`make fuzz` runs the same tests with many more examples."""

from hypothesis import settings

settings.register_profile("long", deadline=None, derandomize=False, max_examples=20_000)
