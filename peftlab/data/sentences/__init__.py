"""Synthetic sentences with translations, authored for peftlab: see `generate`."""
