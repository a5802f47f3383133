"""Texts -> guide vectors, and vectors taken from an older index."""
