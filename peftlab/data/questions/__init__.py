"""Made-up customer questions with their answers."""
