"""What is sent for an event: the body of a Dramatiq message, as the backend's actors take it."""

from __future__ import annotations

from dramatiq.message import Message

from carpark.events import Event


def message_body(event: Event) -> bytes:
    """Write an event as the Dramatiq message that is sent.

    Args:
        event: The event.

    Returns:
        JSON whose ``kwargs`` are exactly the event; its message id and its time of sending are new with each call.
    """
    message: Message[None] = Message(
        queue_name=event.queue, actor_name=event.queue, args=(), kwargs=event.to_dict(), options={}
    )
    return message.encode()
