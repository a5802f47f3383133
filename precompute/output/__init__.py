"""Where an index is written, and how a build begins, continues and finishes."""
