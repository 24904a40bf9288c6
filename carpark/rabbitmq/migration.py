"""``carpark queues --migrate``: gives existing queues the arguments that they are declared with now, and loses nothing.

RabbitMQ cannot change a queue's arguments. So its messages go to a queue beside it, it is deleted, declared anew, and
they come back. Each copy is confirmed before the original is acknowledged, and what is there says how far it has come:
killed anywhere, and run again, it goes on. A kill may leave some messages twice, side by side, which has no effect.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from dramatiq.common import dq_name
from pika import exceptions, spec
from pika.adapters.blocking_connection import BlockingConnection

from carpark.domain.events import VehicleExited, load_json
from carpark.domain.routing import DELIVER, is_event_queue
from carpark.errors import BrokerUnavailable, MessageError, QueueInUse, QueueMismatch, RecordsUnavailable
from carpark.rabbitmq.connection import MAX_MESSAGE_BYTES, connected, look
from carpark.rabbitmq.management import ManagementApi
from carpark.rabbitmq.moving import Mover, Taken
from carpark.rabbitmq.topology import ASIDE, TYPE, all_queues, declare_queue, queue_arguments, with_companions
from carpark.records import open_records
from carpark.settings import Settings

QUIET = 1.0
"""Seconds in which nothing may come into a quorum queue before it is deleted: it cannot be deleted "if it is empty"."""

_LOCK = "carpark.migrating"


def summaries_of(body: bytes) -> set[tuple[str, str]]:
    """Read a message by which the backend tried a delivery again before."""
    try:
        fields = load_json(body, MAX_MESSAGE_BYTES)
        kwargs = fields["kwargs"]
        if fields["actor_name"] != DELIVER:
            return set()
        return {(kwargs["sink"], summary["id"]) for summary in kwargs["summaries"]}
    except (MessageError, TypeError, LookupError):
        return set()


class Migration:
    """Replaces the queues of events that exist with other arguments."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._url, self._queue_type, self._say = settings.broker_url, settings.queue_type, say
        self._queues, self._redis_url = all_queues(settings.partitions), settings.redis_url
        self._management = ManagementApi.of(settings)
        self._mover = Mover(settings.broker_url, "carpark queues")

    def run(self) -> None:
        """Replace what has to be replaced, and send delayed events to their queue again."""
        with contextlib.closing(self._management), self._connected() as connection:
            self._migrate(connection)

    def _migrate(self, connection: BlockingConnection) -> None:
        self._lock(connection)
        names = [name for queue in self._queues for name in with_companions(queue)]
        for name in names:
            self._refuse_consumers(connection, name)
        for name in names:
            self._replace(connection, name)
        self._adopt_summaries()
        for queue in filter(is_event_queue, self._queues):
            delayed = dq_name(queue)
            count = self._mover.requeue(delayed, lambda taken: not summaries_of(taken.body), sys.maxsize)
            if count:
                self._say(f"queues: {count} delayed events went back to {queue}")

    def _adopt_summaries(self) -> None:
        """Drop the messages that carried summaries, where these are in the outbox."""
        try:
            with contextlib.closing(open_records(self._redis_url, 1)) as records:
                adopted = records.adopt()
                there = {
                    (sink.sink, summary.id)
                    for sink in records.backlogs()
                    for summary, _ in records.outbox(sink.sink).stays()
                }
        except RecordsUnavailable as error:
            said = f"{error}; run this again when it is there"
            raise RecordsUnavailable(said, refuses=error.refuses) from error
        if adopted:
            self._say(f"queues: {adopted} summaries are in the outbox of their sink now")

        def is_there(taken: Taken) -> bool:
            carried = summaries_of(taken.body)
            return bool(carried) and carried <= there

        for name in (VehicleExited.queue, dq_name(VehicleExited.queue)):
            count = self._mover.delete(name, is_there, sys.maxsize)
            if count:
                self._say(f"queues: {count} messages of {name} were dropped: what they carry is in the outbox")

    def _replace(self, connection: BlockingConnection, name: str) -> None:
        aside = name + ASIDE
        if self._is_otherwise(connection, name):
            if look(connection, aside) is None:
                # The arguments of a delay queue: those of a queue with nothing special about it.
                arguments = queue_arguments(dq_name(name), self._queue_type)
                with connection.channel() as channel:
                    channel.queue_declare(aside, durable=True, arguments=arguments)
            while not self._is_deleted(connection, name):
                self._mover.transfer(name, aside)
            with connection.channel() as channel:
                declare_queue(channel, name, self._queue_type)
            self._say(f"queues: {name} is declared anew")
        moved = 0
        while look(connection, aside) is not None and not self._is_deleted(connection, aside):
            moved += self._mover.transfer(aside, name)
        if moved:
            self._say(f"queues: {moved} messages are back in {name}")

    def _is_otherwise(self, connection: BlockingConnection, name: str) -> bool:
        """Tell whether a queue exists with other arguments; one that is missing is declared."""
        channel = connection.channel()
        try:
            declare_queue(channel, name, self._queue_type)
        except QueueMismatch:
            return True
        channel.close()
        with contextlib.suppress(BrokerUnavailable, KeyError):  # some are set up to let another type pass
            return bool(self._management.queues()[name].kind != queue_arguments(name, self._queue_type)[TYPE])
        return False

    def _is_deleted(self, connection: BlockingConnection, name: str) -> bool:
        """Delete a queue if it is empty and nobody uses it."""
        found = look(connection, name)
        if found is None:
            return True
        if found.message_count:
            return False
        with self._connected() as other:  # a refusal would close the one that holds the lock
            try:
                other.channel().queue_delete(name, if_unused=True, if_empty=True)
            except (exceptions.ChannelClosedByBroker, exceptions.ConnectionClosedByBroker) as error:
                if error.reply_code == spec.PRECONDITION_FAILED:
                    self._refuse_consumers(connection, name)
                    return False
                if error.reply_code != spec.NOT_IMPLEMENTED:
                    raise
                self._delete_quorum(connection, name)
        return True

    def _delete_quorum(self, connection: BlockingConnection, name: str) -> None:
        """Delete an empty quorum queue, which RabbitMQ does whether it is empty or not."""
        connection.sleep(QUIET)
        self._refuse_consumers(connection, name)
        if (found := look(connection, name)) and found.message_count:
            raise QueueInUse(name, "somebody publishes to it; stop the cameras, too, and run this again")
        connection.channel().queue_delete(name)

    def _refuse_consumers(self, connection: BlockingConnection, name: str) -> None:
        found = look(connection, name)
        if found is not None and found.consumer_count:
            raise QueueInUse(name, f"{self._consumers(name)} from it; stop the workers and run this again")

    def _consumers(self, name: str) -> str:
        """Say who consumes from a queue, as far as RabbitMQ tells."""
        with contextlib.suppress(BrokerUnavailable):
            named = {each.connection for each in self._management.consumers() if each.queue == name}
            titles = {each.title or each.name for each in self._management.connections() if each.name in named}
            if titles:
                return f"{', '.join(sorted(titles))} consume{'s' * (len(titles) == 1)}"
        return "somebody consumes"

    @staticmethod
    def _lock(connection: BlockingConnection) -> None:
        try:
            connection.channel().queue_declare(_LOCK, exclusive=True)  # gone with the connection
        except exceptions.ChannelClosedByBroker as error:
            if error.reply_code != spec.RESOURCE_LOCKED:
                raise
            raise QueueInUse(_LOCK, "another `carpark queues --migrate` is at work") from None

    def _connected(self) -> contextlib.AbstractContextManager[BlockingConnection]:
        # It says nothing for as long as a queue is moved; when this process dies, its end is noticed anyway.
        return connected(self._url, "carpark queues", heartbeat=0)
