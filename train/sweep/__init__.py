"""Many training runs against one index, ranked."""
