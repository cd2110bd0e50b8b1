"""Time and memory, next to other engines."""
