"""The built-in ticket set: made-up customer tickets in Chinese and English, drawn from phrases written for peftlab."""
