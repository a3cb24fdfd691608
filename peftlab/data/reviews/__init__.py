"""Synthetic reviews with a number of stars, authored for peftlab: see `generate`."""
