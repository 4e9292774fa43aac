"""Hostile and broken submissions, each with the result it must get: see `table`."""
