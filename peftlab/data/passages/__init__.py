"""Synthetic passages with questions on them, authored for peftlab: see `generate`."""
