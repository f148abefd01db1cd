"""The outside world: one file per thing that could be replaced."""
