"""A car park simulator as a Dramatiq actor system with a plugin architecture.

Start with ``make run``; the commands are in `carpark.cli`, the messages in `carpark.domain.events`.
"""

__version__ = "0.1.0"
