"""Stage 2: train students against a guide index, with no guide in memory."""
