"""Where the shards of a step are computed: this process, several processes, or a Ray cluster."""
