"""Find the cheapest fine-tuning of a frozen encoder that meets a target, prove it, and ship it."""

__version__ = "0.1.0"
