"""Where stays are kept and joined: one implementation over Redis; ``memory://`` only changes the client."""

from carpark.records.connection import connect, forget_memory
from carpark.records.outbox import Backlog, Batch, Outbox, Settlement
from carpark.records.store import ExitsHeld, Forgotten, ForgottenPlates, Outcome, Recorded, Records, Settled

__all__ = [
    "Backlog",
    "Batch",
    "ExitsHeld",
    "Forgotten",
    "ForgottenPlates",
    "Outbox",
    "Outcome",
    "Recorded",
    "Records",
    "Settled",
    "Settlement",
    "connect",
    "forget_memory",
]
