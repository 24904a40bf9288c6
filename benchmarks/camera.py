"""Publishes stays at a steady rate: each exit's time is when it was due, so that its row says how late it is."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from datetime import UTC, datetime

from carpark.domain.events import Event, VehicleEntered, VehicleExited, format_time
from carpark.settings import load_settings
from generators.publisher import RabbitmqPublisher
from generators.service import WINDOW

STAY_SECONDS = 0.2


def main() -> None:
    """Publish for so many seconds at so many events a second, half of them entries."""
    rate, seconds = float(sys.argv[1]), float(sys.argv[2])
    publisher = RabbitmqPublisher(load_settings().broker_url, threading.Event(), print)
    behind = max(1, round(rate * STAY_SECONDS / 2))
    run = uuid.uuid4().hex[:12]
    start = time.time() + 0.5

    def event(number: int) -> Event | None:
        due = format_time(datetime.fromtimestamp(start + number / rate, UTC))
        vehicle = number // 2 if number % 2 == 0 else number // 2 - behind
        if vehicle < 0:
            return None
        fields = {"id": f"{run}-{vehicle}", "vehicle_plate": f"V{vehicle}"}
        if number % 2 == 0:
            return VehicleEntered.parse({**fields, "entry_date_time": due})
        return VehicleExited.parse({**fields, "exit_date_time": due})

    sent, total = 0, int(rate * seconds)
    while sent < total:
        due = min(total, sent + WINDOW, int((time.time() - start) * rate) + 1)
        if due > sent:
            publisher.publish([made for made in map(event, range(sent, due)) if made is not None])
            sent = due
        else:
            time.sleep(max(0.0, min(0.01, start + sent / rate - time.time())))
    publisher.close()
    print(f"published until {format_time(datetime.fromtimestamp(start + total / rate, UTC))}", flush=True)


if __name__ == "__main__":
    main()
