"""What proves each step: the original next to what was read and written, a library next to its network.

The law itself is ``passes.law``; ``verify``, which repeats a recipe, stands at the front door.
"""
