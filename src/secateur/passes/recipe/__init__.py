"""Recipes: what was kept, by weight name, so that anybody can replay or check a removal.

``recipe`` is the value and its JSON, ``schema`` what a file must hold, ``build`` makes one from a keep mask, ``mask``
reads one back as a keep mask, ``places`` points into the user's file, ``digests`` knows weights to the last bit.
"""

from .recipe import Mixed, Recipe, Steps

__all__ = ["Mixed", "Recipe", "Steps"]
