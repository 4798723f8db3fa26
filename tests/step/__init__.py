"""The step: nothing that it remembers, and nothing that happens beside it, changes its result."""
