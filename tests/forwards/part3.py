"""Part 3, moving data."""

RULES = {}
