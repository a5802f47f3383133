"""The command line: entry point, output, configuration file, and the small commands."""
