"""Stage 1: embed a corpus of pairs with a guide, once, and write a guide index."""
