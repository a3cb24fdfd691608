"""Synthetic sentences with names in them, authored for peftlab: see `generate`."""
