"""`gistcache report`: one page of an index and of the runs trained against it."""
