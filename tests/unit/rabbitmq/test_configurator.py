"""The queue configurator without a RabbitMQ: its settings, its metrics, its errors."""

import ssl
from collections.abc import Callable

import pytest
from click.testing import CliRunner
from pika import exceptions
from prometheus_client import CollectorRegistry

from carpark.errors import BrokerUnavailable, InvalidSetting
from carpark.rabbitmq.configurator import QueueConfigurator, queues
from carpark.rabbitmq.connection import explain, open_connection, unavailable
from carpark.rabbitmq.management import ManagementApi, virtual_host_of
from carpark.rabbitmq.metrics import QueueMetrics
from carpark.rabbitmq.topology import all_queues
from carpark.settings import Settings


def test_the_in_process_broker_is_refused_with_what_is_wanted(make_settings: Callable[..., Settings]) -> None:
    with pytest.raises(InvalidSetting, match=r"^CARPARK_BROKER_URL='stub://': wanted RabbitMQ"):
        QueueConfigurator(make_settings(), QueueMetrics(CollectorRegistry(), all_queues(1)), print)


@pytest.mark.parametrize("text", ["nan", "0", "-1", "inf", "two", ""])
def test_an_interval_that_is_none_is_refused(text: str) -> None:
    result = CliRunner().invoke(queues, ["--interval", text])
    assert result.exit_code == 2
    assert "wanted a number of seconds" in result.output


def test_help_ends_in_examples() -> None:
    output = CliRunner().invoke(queues, ["--help"]).output
    assert "carpark queues --once" in output.partition("Examples:")[2]


def test_a_number_that_is_not_known_is_not_shown() -> None:
    registry = CollectorRegistry()
    metrics = QueueMetrics(registry, all_queues(1))

    def shown(state: str) -> float | None:
        labels = {"queue": "vehicle_entry", "state": state}
        return registry.get_sample_value("queue_configurator_queue_messages", labels)

    metrics.counts("vehicle_entry", {"ready": 1, "unacked": 2}, 3)
    assert (shown("ready"), shown("unacked")) == (1, 2)
    metrics.counts("vehicle_entry", {"ready": 4, "unacked": None}, 3)
    metrics.counts("vehicle_entry", {"ready": 5, "unacked": None}, 3)
    assert (shown("ready"), shown("unacked")) == (5, None)
    metrics.forget()
    assert shown("ready") is None
    assert registry.get_sample_value("queue_configurator_queue_consumers", {"queue": "vehicle_entry"}) is None


def test_both_queues_are_in_the_metrics_from_the_start() -> None:
    registry = CollectorRegistry()
    QueueMetrics(registry, all_queues(1))
    name = "queue_configurator_declarations_total"
    for queue in ("vehicle_entry", "vehicle_exit"):
        for outcome in ("declared", "failed"):
            assert registry.get_sample_value(name, {"queue": queue, "outcome": outcome}) == 0


def test_an_unreachable_rabbitmq_is_named_without_its_password(free_port: int) -> None:
    with pytest.raises(BrokerUnavailable) as caught:
        open_connection(f"amqp://me:hidden@127.0.0.1:{free_port}", "test", 5)
    message = str(caught.value)
    assert message.startswith(f"RabbitMQ at amqp://me:***@127.0.0.1:{free_port}: connection refused; ")
    assert "CARPARK_BROKER_URL" in message


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            exceptions.ProbableAccessDeniedError("ConnectionClosedByBroker: (530) 'NOT_ALLOWED - vhost x not found'"),
            "vhost x not found",
        ),
        (exceptions.ProbableAuthenticationError("(403) ..."), "it refuses the user or the password"),
        (exceptions.IncompatibleProtocolError("..."), "what listens there does not speak AMQP"),
        (exceptions.StreamLostError("Stream connection lost: ConnectionResetError(104)"), "the connection was lost"),
        (exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED - shutdown"), "shutdown"),
        (exceptions.ChannelClosedByBroker(403, "ACCESS_REFUSED - access to queue 'q' refused"), "access to queue 'q'"),
        (exceptions.AMQPConnectionError(ssl.SSLCertVerificationError(1, "self-signed")), "TLS: self-signed"),
        (exceptions.AMQPError(), "AMQPError"),
    ],
)
def test_reasons_are_plain_words(error: Exception, reason: str) -> None:
    assert explain(error)[0].startswith(reason)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("amqp://host", "/"),
        ("amqp://host/", "/"),
        ("amqp://host/%2F", "/"),
        ("amqp://host/a%20b%2Fc", "a b/c"),
        ("amqp://one/first;amqp://two/second", "first"),
    ],
)
def test_the_virtual_host_is_read_as_the_client_does(url: str, name: str) -> None:
    assert virtual_host_of(url) == name


def test_a_management_api_that_is_not_there_is_named_without_its_password(free_port: int) -> None:
    api = ManagementApi(f"http://me:hidden@127.0.0.1:{free_port}", "/")
    with pytest.raises(BrokerUnavailable) as caught:
        api.queues()
    message = str(caught.value)
    assert f"http://me:***@127.0.0.1:{free_port}: connection refused; turn it on" in message
    assert "CARPARK_MANAGEMENT_URL" in message
    assert "hidden" not in message


@pytest.mark.parametrize(
    ("error", "refuses"),
    [
        (exceptions.ProbableAuthenticationError("(403) ..."), True),
        (exceptions.ChannelClosedByBroker(403, "ACCESS_REFUSED - access to queue 'q' refused"), True),
        (exceptions.AMQPConnectionError(ssl.SSLCertVerificationError(1, "self-signed certificate")), True),
        (exceptions.AMQPConnectionError(ConnectionRefusedError(111, "Connection refused")), False),
        (exceptions.IncompatibleProtocolError("..."), False),
        (exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED - shutdown"), False),
    ],
)
def test_a_refusal_is_told_from_a_rabbitmq_that_is_away(error: Exception, refuses: bool) -> None:
    said = unavailable("amqp://me:hidden@h", error)
    assert said.refuses == refuses
    assert "hidden" not in str(said)


@pytest.mark.parametrize("said", ["access to vhost 'v' refused for user 'w'", 'no queue "q"', "shutdown"])
@pytest.mark.parametrize("written", ["{}", "(530, '{}')", "Client was disconnected: '{}'", 'at once: "{}"'])
def test_what_rabbitmq_says_keeps_its_own_quotes(said: str, written: str) -> None:
    reason, _ = explain(exceptions.ProbableAccessDeniedError(written.format(f"NOT_ALLOWED - {said}")))
    assert said in reason
    assert reason.startswith(said)
