"""Locate a model, load it safely, and run it without padding."""
