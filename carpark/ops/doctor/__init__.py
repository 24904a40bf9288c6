"""``carpark doctor``: checks each setting and server, says what it found and what to do, and changes nothing."""

from carpark.ops.doctor.command import doctor

__all__ = ["doctor"]
