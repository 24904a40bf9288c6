"""The audit: what the journals' events must come to, held against what the sinks, the records and the queues have."""

from __future__ import annotations

from carpark.ops.audit.auditing import Sources, audit
from carpark.ops.audit.lastrun import LastRun, run_folder, run_folder_of
from carpark.ops.audit.verdict import SinkVerdict, Verdict

__all__ = ["LastRun", "SinkVerdict", "Sources", "Verdict", "audit", "run_folder", "run_folder_of"]
