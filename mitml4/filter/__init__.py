"""The language of filters: which flows and exchanges are meant (docs/filter.md)."""
