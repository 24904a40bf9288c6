"""The one check of a worker's servers at its start, before it could wait in vain for what waiting does not mend."""

from __future__ import annotations

import contextlib
import os

from carpark.rabbitmq.rights import require_worker
from carpark.records import open_records
from carpark.records.connection import require
from carpark.settings import Settings
from carpark.telemetry import folder

CHECKED = "_CARPARK_CHECKED"
"""The variable by which ``carpark worker`` tells the worker that it becomes that it has checked: its process id."""


def is_checked() -> bool:
    """Say whether ``carpark worker`` checked settings and servers, and then became this worker."""
    return os.environ.get(CHECKED) == str(folder.master_pid() or os.getpid())


def check_servers(settings: Settings) -> None:
    """See that RabbitMQ and Redis let the worker in, that its rights are enough and its queues of the right type."""
    require_worker(settings)
    with contextlib.closing(open_records(settings.redis_url, 1, settings.sinks, attempts=1)) as records:
        require(settings.redis_url, lambda: records.rights()[1])
