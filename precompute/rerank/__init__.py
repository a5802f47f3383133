"""Score the stored neighbours of an index with a cross-encoder."""
