"""Part 2, elementwise operations."""

RULES = {}
