"""``python -m carpark`` is the same as ``carpark``."""

from carpark.cli import main

main()
