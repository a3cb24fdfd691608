"""Synthetic sentences with two entities and their relation, authored for peftlab: see `generate`."""
