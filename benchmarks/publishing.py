"""How fast events are published: ours with confirms, bare pika without."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pika

from benchmarks.load import Load, wait_until_queued
from benchmarks.stage import Stage
from carpark.domain.events import Event
from carpark.rabbitmq.topology import declare_queues
from generators.publisher import RabbitmqPublisher
from generators.service import WINDOW

OURS, BARE = "carpark, confirmed", "bare pika, unconfirmed"


def measure(stage: Stage, size: int, rounds: int) -> dict[str, Any]:
    """Publish the same events both ways, in turns.

    Args:
        stage: The servers.
        size: How many events.
        rounds: How often.

    Returns:
        Name to the rate of each round, in events per second.
    """
    events = Load(size).events
    rates: dict[str, list[float]] = {OURS: [], BARE: []}
    for _ in range(rounds):
        rates[OURS].append(_timed(stage, events, _confirmed))
        rates[BARE].append(_timed(stage, events, _unconfirmed))
    return rates


def _timed(stage: Stage, events: Sequence[Event], publish: Callable[[str, Sequence[Event]], float]) -> float:
    with stage.site() as site:
        connection = pika.BlockingConnection(pika.URLParameters(site.broker_url))
        channel = connection.channel()
        declare_queues(channel)
        seconds = publish(site.broker_url, events)
        wait_until_queued(channel, Counter(event.queue for event in events))
        connection.close()
    return len(events) / seconds


def _confirmed(url: str, events: Sequence[Event]) -> float:
    publisher = RabbitmqPublisher(url, threading.Event(), print)
    publisher.publish(events[:1])  # connects
    began = time.monotonic()
    for start in range(1, len(events), WINDOW):
        publisher.publish(events[start : start + WINDOW])
    seconds = time.monotonic() - began
    publisher.close()
    return seconds


def _unconfirmed(url: str, events: Sequence[Event]) -> float:
    properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    began = time.monotonic()
    for event in events:
        channel.basic_publish("", event.queue, json.dumps(event.to_dict()).encode(), properties)
    seconds = time.monotonic() - began
    connection.close()
    return seconds
