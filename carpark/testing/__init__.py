"""A kit for authors of plugins: conformance suites for pytest, and summaries to try a sink with.

A suite is a class to subclass in a test module; what it needs it asks of a few methods::

    from carpark.testing import SinkConformance, make_context

    class TestMySink(SinkConformance):
        def make_sink(self):
            return MySink(self.folder / "stays.txt")

        def stored_ids(self):
            return read_ids(self.folder / "stays.txt")

Nothing here needs pytest to be imported; the built-in sinks and plate generators run the same suites.
"""

from carpark.testing.factories import make_context, make_summaries, make_summary
from carpark.testing.plates import PlatesConformance
from carpark.testing.sinks import SinkConformance

__all__ = ["PlatesConformance", "SinkConformance", "make_context", "make_summaries", "make_summary"]
