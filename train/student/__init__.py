"""The student: load it, make it smaller, run its forward pass."""
