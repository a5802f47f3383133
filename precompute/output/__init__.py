"""Where an index is written, its shards, and how a build begins, resumes and finishes."""
