"""The whole system in one process: `carpark run`."""
