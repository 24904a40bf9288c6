"""Where stays are kept and joined: one implementation over Redis; ``memory://`` only changes the client."""

from carpark.records.connection import connect, forget_memory
from carpark.records.store import Outcome, Recorded, Records, Settled

__all__ = ["Outcome", "Recorded", "Records", "Settled", "connect", "forget_memory"]
