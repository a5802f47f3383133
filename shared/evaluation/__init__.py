"""Evaluate a model: retrieval on held-out pairs, STS, MTEB."""
