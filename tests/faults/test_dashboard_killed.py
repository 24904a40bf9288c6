"""The dashboard dies in the middle of moving a thousand messages, and its broker under it: nothing is lost."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pika
import pytest
import requests
from pika.adapters.blocking_connection import BlockingChannel

from carpark.rabbitmq.moving import BATCH
from carpark.rabbitmq.topology import declare_queues
from tests.support.dashboard_service import post, start_dashboard
from tests.support.helpers import eventually
from tests.support.mailbox import bodies, count, dead_letters, fill
from tests.support.processes import Processes
from tests.support.proxy import TcpProxy
from tests.support.servers import RabbitmqServer

MESSAGES = 1000
FORM = {"queue": "vehicle_exit.XQ", "match": "", "count": MESSAGES}


@pytest.fixture
def channel(channel: BlockingChannel) -> BlockingChannel:
    fill(channel, "vehicle_exit.XQ", dead_letters(MESSAGES))
    return channel


def test_killed_in_the_middle_of_requeue_all_it_loses_nothing(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel
) -> None:
    arrived = []
    with closing(TcpProxy(server_environ["CARPARK_BROKER_URL"])) as proxy, ThreadPoolExecutor(1) as pool:
        for _ in range(30):  # ten batches, each held up: there is time to kill it between two
            proxy.stall_delivery(1.0)
        dashboard, url = start_dashboard(processes, {**server_environ, "CARPARK_BROKER_URL": proxy.url})
        asked = pool.submit(post, url, "/requeue-all", **FORM)
        # Whoever consumes hears of the first message at once; asking for a count would be too slow.
        for method, _, body in channel.consume("vehicle_exit", inactivity_timeout=60):
            assert body is not None, "nothing was sent"
            channel.basic_ack(method.delivery_tag)  # what has arrived behind it goes back
            arrived.append(body)
            dashboard.kill()
            break
        with pytest.raises(requests.ConnectionError):
            asked.result()
    channel.cancel()
    eventually(lambda: count(channel, "vehicle_exit.XQ"), what="what was not acknowledged is back")
    assert count(channel, "vehicle_exit.XQ") > MESSAGES // 2, "it was killed when all was done"

    _, url = start_dashboard(processes, server_environ)
    assert post(url, "/requeue-all", **FORM).ok
    assert bodies(channel, "vehicle_exit.XQ") == []
    seen = Counter(arrived + bodies(channel, "vehicle_exit"))
    assert set(seen) == {b"garbage %d" % number for number in range(MESSAGES)}
    assert sum(seen.values()) - MESSAGES <= BATCH
    assert max(seen.values()) <= 2


def test_a_broker_that_is_killed_under_it_loses_nothing(
    processes: Processes, server_environ: dict[str, str], private_rabbitmq: RabbitmqServer
) -> None:
    urls = {"CARPARK_BROKER_URL": private_rabbitmq.url, "CARPARK_MANAGEMENT_URL": private_rabbitmq.management_url}
    dashboard, url = start_dashboard(processes, {**server_environ, **urls})
    connection = pika.BlockingConnection(pika.URLParameters(private_rabbitmq.url))
    channel = connection.channel()
    declare_queues(channel)
    channel.confirm_delivery()
    for body, properties in dead_letters(MESSAGES):
        channel.basic_publish("", "vehicle_exit.XQ", body, properties)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(post, url, "/requeue-all", **FORM)
        eventually(lambda: count(channel, "vehicle_exit"), 60, interval=0.001)
        private_rabbitmq.kill()
        answer = asked.result()
    with pytest.raises(pika.exceptions.AMQPError):
        connection.close()
    assert answer.status_code in (200, 503)
    assert "Traceback" not in answer.text + dashboard.output
    private_rabbitmq.start()
    if answer.status_code == 503:
        assert post(url, "/requeue-all", **FORM).ok
    with pika.BlockingConnection(pika.URLParameters(private_rabbitmq.url)) as connection:
        channel = connection.channel()
        assert bodies(channel, "vehicle_exit.XQ") == []
        assert set(bodies(channel, "vehicle_exit")) == {b"garbage %d" % number for number in range(MESSAGES)}
