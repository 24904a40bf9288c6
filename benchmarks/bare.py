"""The practical limit: a loop around pika that works on 100 events at a time and acknowledges them together."""

from __future__ import annotations

import signal
from collections import deque

import pika

from benchmarks.work import Work
from carpark.domain.events import EVENT_OF_QUEUE, load_json
from carpark.settings import load_settings

BATCH = 100
PREFETCH = 1000


def main() -> None:
    """Work until SIGTERM."""
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    work = Work()
    connection = pika.BlockingConnection(pika.URLParameters(load_settings().broker_url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=PREFETCH)
    arrived: deque[tuple[int, str, bytes]] = deque()
    for queue in EVENT_OF_QUEUE:
        channel.basic_consume(
            queue, lambda _, method, __, body: arrived.append((method.delivery_tag, method.routing_key, body))
        )
    while not stopping:
        connection.process_data_events(time_limit=0.1)
        read = 0
        while read < len(arrived) < BATCH:  # what has arrived makes one batch, not what one read of the socket gave
            read = len(arrived)
            connection.process_data_events(time_limit=0)
        while arrived:
            batch = [arrived.popleft() for _ in range(min(BATCH, len(arrived)))]
            work.do([EVENT_OF_QUEUE[queue].parse(load_json(body)["kwargs"]) for _, queue, body in batch])
            channel.basic_ack(batch[-1][0], multiple=True)
    connection.close()


if __name__ == "__main__":
    main()
