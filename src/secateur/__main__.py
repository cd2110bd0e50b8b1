"""``python -m secateur``, which is what launchers such as torchrun start."""

from .cli.app import main

if __name__ == "__main__":
    main()
