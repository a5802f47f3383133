"""Texts -> guide vectors, vectors copied from an older index, and what rounding them changes."""
