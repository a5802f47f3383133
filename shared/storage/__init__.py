"""Files written atomically, their checksums, the build journal, the folder lock, and object storage."""
