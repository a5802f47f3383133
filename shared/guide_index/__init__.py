"""The guide index on disk, read side: its layout, its manifest, and memory-mapped access by id."""
