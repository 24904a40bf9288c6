"""Makes dead letters of what waits for a sink that no worker has any more.

A summary is marked as given up only when RabbitMQ has confirmed its dead letter, so a kill at any point loses none: the
next call goes on, and gives what was in hand a second dead letter of the same id, which has no effect when it is sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from carpark.backend.relay import DeadLetter, summary_message
from carpark.records import Batch, Outbox, Settlement

BATCH = 100
"""How many summaries are marked together; a kill leaves at most so many with two dead letters."""

LEASE = 10.0
"""Seconds for which a batch is this call's alone; after a kill the next call waits for their end."""

_GLANCE = 1.0


def give_up(outbox: Outbox, sink: str, dead_letter: DeadLetter) -> Iterator[int]:
    """Give up all that waits for a sink, in batches, until a worker has the sink."""
    while not outbox.backlog().has_worker:
        batch = outbox.take(LEASE, BATCH, whatever=True)
        if isinstance(batch, Batch):
            members = batch.summaries[:BATCH]  # those of a batch that a worker had formed can be more
            for summary in members:
                dead_letter(
                    summary_message(sink, summary),
                    f"sink {sink!r}: no worker has it; given up by `carpark dlq give-up`",
                )
            yield outbox.settle(batch, Settlement(dead=[summary.id for summary in members]))[2]
        elif batch < 0:
            return
        else:
            yield 0
            time.sleep(min(batch, _GLANCE))
