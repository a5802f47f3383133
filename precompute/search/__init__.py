"""Neighbors, FAISS files, local density and scores, computed from the stored guide vectors."""
