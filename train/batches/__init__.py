"""Which pairs share a batch, and what a batch holds: the plan, hard negatives, collators, the token cache."""
