"""Part 1, chains."""

RULES = {}
