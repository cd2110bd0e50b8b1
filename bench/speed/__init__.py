"""Time and memory, beside other engines."""
