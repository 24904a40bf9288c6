"""The commands ``carpark dlq``: dead letters from a terminal or a script, however many there are."""

from __future__ import annotations

import difflib
import json
import shutil
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial, wraps
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import IO, Any

import click
from dramatiq.common import xq_name
from dramatiq.errors import ConnectionClosed
from pika import BasicProperties

from carpark.broker import RabbitmqBroker
from carpark.domain.routing import WORK
from carpark.errors import BrokerUnavailable, InvalidSetting
from carpark.ops.audit.lastrun import LastRun, run_folder_of
from carpark.ops.dashboard.base import matches
from carpark.ops.dashboard.giving_up import give_up
from carpark.ops.dashboard.jobs import CUT, Job, check_mended, job_of
from carpark.ops.health import span, summaries
from carpark.rabbitmq.connection import MAX_MESSAGE_BYTES
from carpark.rabbitmq.management import TYPE_TIMEOUT, ManagementApi
from carpark.rabbitmq.moving import Mover, Taken
from carpark.rabbitmq.topology import all_queues
from carpark.records import Backlog, Records, open_records
from carpark.settings import Settings
from carpark.settings.model import MOST_PARTITIONS
from carpark.settings.options import CONTEXT, EXIT_FAILED, EXIT_OK, examples, settings_options

_ALL = 1_000_000_000
_SERVED = (
    "a sink that no worker has; one asked for its summaries {} ago: take it out of CARPARK_SINKS, restart the workers, "
    "and call this half a minute later"
)

Move = Callable[[str, Callable[[Taken], bool], int], int]
Line = tuple[str, ...]


def _known(ctx: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    if name is not None and name not in all_queues(MOST_PARTITIONS):
        wanted = f"one of {', '.join(all_queues(1))}, or a partition's"
        raise click.BadParameter(f"{name!r}: wanted {wanted}", ctx, parameter)
    return name


_queue = click.option("--queue", metavar="QUEUE", callback=_known, help="Only the dead letters of this queue")
_match = click.option(
    "--match",
    default="",
    metavar="TEXT",
    help="Only those with this in their reason, actor or the body's first 4 KiB, or of this plate",
)
_csv = click.option(
    "--csv",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Those that the last `carpark run` with this CSV left, rather than RabbitMQ's",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON")
_of_broker = settings_options("broker_url", "management_url", "partitions")


def _selection(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options that say which dead letters it is about; it takes them as they are, for `_move`."""

    @wraps(command)
    def run(ids: Sequence[str], all_: bool, **others: Any) -> int:
        if bool(ids) == all_:
            raise click.UsageError("say which: ids as `carpark dlq list` shows them, or --all")
        return command(ids=ids, **others)

    all_ = click.option("--all", "all_", is_flag=True, help="All, or all that --queue and --match leave")
    return click.argument("ids", nargs=-1, metavar="[ID]...")(all_(_queue(_match(run))))


@click.group(
    "dlq",
    context_settings=CONTEXT,
    epilog=examples(
        "carpark dlq list --queue carpark_work --match http-csv",
        "carpark dlq show 89837216f34aec3a",
        "carpark dlq requeue --all --match http-csv",
        "carpark dlq purge 89837216f34aec3a",
        "carpark dlq give-up webhook",
    ),
)
def dlq() -> None:
    """List, show, requeue or purge dead letters, or make them of what waits for a sink that no worker has any more.

    Looking changes nothing: a queue that would count looks is refused. A dead letter that is requeued goes to its
    queue as it came, and is taken away when RabbitMQ has confirmed that. RabbitMQ's management API is not needed;
    give-up needs the records, too.
    """


@dlq.command(
    "list",
    epilog=examples(
        "carpark dlq list",
        "carpark dlq list --queue vehicle_entry --offset 1000 --limit 500",
        "carpark dlq list --csv data/summaries.csv    # those of a `carpark run` that has ended",
        "carpark dlq list --json --limit 100000 | jq -r '.[].error' | sort | uniq -c",
    ),
)
@_of_broker
@_queue
@_match
@click.option("--offset", type=click.IntRange(0), default=0, metavar="N", help="Leave out the first N")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, metavar="N", help="List N at most")
@_csv
@_json
def list_(
    settings: Settings, queue: str | None, match: str, offset: int, limit: int, csv: Path | None, as_json: bool
) -> None:
    """List dead letters, the oldest of each queue first."""
    line = _json_of if as_json else _row
    with closing(_walk(settings, queue, csv, CUT)) as messages:
        chosen = filter(matches(match), map(job_of, messages))
        lines = [line(job) for job in islice(chosen, offset, offset + limit)]
        more = next(chosen, None) is not None
    if as_json:
        click.echo(f"[{', '.join(text for (text,) in lines)}]")
        return
    if lines:
        _table(lines)
    if more:
        click.echo(f"{offset + 1} to {offset + len(lines)}; there are more: --offset {offset + limit}", err=True)
    elif not lines:
        click.echo("no dead letters" + (" there" if offset or match or queue else ""), err=True)


@dlq.command(
    epilog=examples(
        "carpark dlq show 89837216f34aec3a",
        "carpark dlq show 89837216f34aec3a --json | jq -r .body > body.json",
    ),
)
@_of_broker
@click.argument("id")
@_csv
@_json
def show(settings: Settings, id: str, csv: Path | None, as_json: bool) -> int:  # noqa: A002 - what the help calls it
    """Show a dead letter: why it died, headers, and its whole body."""
    job = _find(settings, id, csv)
    if job is None:
        return _missing([id])
    fields = job.to_dict(whole=as_json)
    if as_json:
        click.echo(json.dumps(fields))
        return EXIT_OK
    for name in ("id", "queue", "actor", "message_id", "error", "dead_at", "enqueued_at", "size"):
        if fields[name] is not None:
            click.echo(f"{name + ':':15}{fields[name]}")
    for name, value in job.others:
        click.echo(f"{name + ':':15}{value}")
    if job.traceback:
        click.echo(f"\n{job.traceback.rstrip()}")
    click.echo()
    for text in job.shown_whole:
        click.echo(text, nl=False)
    click.echo()
    return EXIT_OK


@dlq.command(
    epilog=examples(
        "carpark dlq requeue 89837216f34aec3a 53911af53b5459ba",
        "carpark dlq requeue --all --queue carpark_work --match 'connection refused'",
        "carpark dlq requeue 89837216f34aec3a --body mended.json",
    ),
)
@_of_broker
@_selection
@click.option("--body", type=click.File("rb"), metavar="FILE", help="Send this in place of one; - for stdin")
@_json
def requeue(settings: Settings, ids: Sequence[str], body: IO[bytes] | None, **others: Any) -> int:
    """Send dead letters to their queue again, in their order."""
    text = None
    if body is not None:
        if len(ids) != 1:
            raise click.UsageError("--body goes with one id")
        text = body.read()
        job = _find(settings, ids[0])
        if job is None:
            return _missing(ids)
        check_mended(job, text)
    return _move(partial(_mover(settings).requeue, body=text), "requeued", settings, ids, **others)


@dlq.command(
    epilog=examples(
        "carpark dlq purge 89837216f34aec3a",
        "carpark dlq purge --all --queue vehicle_entry --match 'not JSON'",
        "carpark dlq purge --all --yes --json",
    ),
)
@_of_broker
@_selection
@click.option("--yes", is_flag=True, help="Do not ask")
@_json
def purge(settings: Settings, ids: Sequence[str], queue: str | None, match: str, yes: bool, as_json: bool) -> int:
    """Delete dead letters for good; asks before it does."""
    mover = _mover(settings)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("--yes is needed where nobody can be asked")
        of = f" of {queue}" if queue else ""
        what = f"{len(ids)} dead letters" if ids else f"all dead letters{of}{f' with {match!r}' if match else ''}"
        click.confirm(f"Delete {what} for good?", abort=True, err=True)
    return _move(mover.delete, "purged", settings, ids, queue, match, as_json)


@dlq.command(
    "give-up",
    epilog=examples(
        "carpark dlq give-up webhook",
        "carpark dlq give-up webhook --json",
        "carpark dlq requeue --all --queue carpark_work --match webhook   # the way back, for a worker with the sink",
    ),
)
@settings_options("broker_url", "queue_type", "redis_url")
@click.argument("sink")
@_json
def give_up_(settings: Settings, sink: str, as_json: bool) -> int:
    """Make dead letters of all that waits for a sink that no worker has any more.

    What waits for such a sink is kept and never tried, until a worker has the sink again. This is the way out where
    none will: each summary becomes a dead letter in carpark_work.XQ, which can be sent again or purged. Refused while
    a worker has the sink. Killed, it can be called again and goes on.
    """
    mover = _mover(settings)
    with closing(_records(settings)) as records:
        mover.count(xq_name(WORK))  # a RabbitMQ that is away is said before anything is taken
        backlog = _backlog_of(sink, records.backlogs(), "a sink that something waits for and no worker has", _stranded)
        if backlog.waiting and backlog.has_worker:
            raise InvalidSetting("SINK", sink, _SERVED.format(span(backlog.asked or 0)))
        if not backlog.is_stranded:
            click.echo(json.dumps({"given up": 0}) if as_json else f"nothing waits for sink {sink}")
            return EXIT_OK
        outbox, given_up = records.outbox(sink), 0
        broker = RabbitmqBroker(settings.broker_url, [], queue_type=settings.queue_type, name="carpark dlq")
        label = f"giving up what waits for {sink}"
        with closing(broker), click.progressbar(length=backlog.waiting, label=label, file=sys.stderr) as bar:
            try:
                for count in give_up(outbox, sink, broker.dead_letter):
                    given_up += count
                    bar.update(count)
            except ConnectionClosed as error:
                said = f"RabbitMQ: {error}; {given_up:,} were given up, the others wait: call it again"
                raise BrokerUnavailable(said) from error
        left = outbox.backlog().waiting
    said = f"gave up {summaries(given_up)} for {sink}: dead letters in {xq_name(WORK)}"
    click.echo(json.dumps({"given up": given_up}) if as_json else said)
    if left:
        click.echo(f"carpark dlq: a worker has {sink} again and delivers {summaries(left)}", err=True)
    return EXIT_FAILED if left else EXIT_OK


@dlq.command(epilog=examples("carpark dlq retry http-csv", "carpark dlq retry http-csv --json"))
@settings_options("redis_url")
@click.argument("sink")
@_json
def retry(settings: Settings, sink: str, as_json: bool) -> int:
    """Have all that was given up for a sink wait for it again, whether its dead letters are still there or not.

    The records keep what was given up; the dead letters are its copies, which RabbitMQ throws away after seven days. A
    letter that is sent again after this has no effect.
    """
    with closing(_records(settings)) as records:
        _backlog_of(sink, records.backlogs(), "a sink that something was given up for", attrgetter("dead"))
        outbox = records.outbox(sink)
        waits = sum(outbox.put_back(summary) for summary, state in outbox.stays() if state == "dead")
    click.echo(json.dumps({"waiting again": waits}) if as_json else f"{summaries(waits)} for {sink} wait again")
    return EXIT_OK


def _records(settings: Settings) -> Records:
    if settings.redis_url.startswith("memory:"):
        raise InvalidSetting("CARPARK_REDIS_URL", settings.redis_url, "the Redis of the workers, redis://host:port/0")
    return open_records(settings.redis_url, settings.retention)


def _backlog_of(sink: str, backlogs: Sequence[Backlog], wanted: str, count: Callable[[Backlog], int]) -> Backlog:
    """Find a sink by its name; of one that nobody knows say which are wanted: those that count something."""
    backlog = next((each for each in backlogs if each.sink == sink), None)
    if backlog is None:
        close = difflib.get_close_matches(sink, [each.sink for each in backlogs], n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        these = ", ".join(f"{each.sink} ({count(each):,})" for each in backlogs if count(each)) or "none"
        raise InvalidSetting("SINK", sink, f"{meant}{wanted}: {these}")
    return backlog


def _stranded(backlog: Backlog) -> int:
    return backlog.waiting if backlog.is_stranded else 0


def _mover(settings: Settings) -> Mover:
    if settings.broker_url.startswith("stub:"):
        wanted = (
            "RabbitMQ, amqp://user:password@host:port; the dead letters of `carpark run` are on its dashboard, and "
            "`carpark dlq list --csv FILE` reads them when it has ended"
        )
        raise InvalidSetting("CARPARK_BROKER_URL", settings.broker_url, wanted)
    return Mover(settings.broker_url, "carpark dlq", ManagementApi.of(settings, TYPE_TIMEOUT))


def _queues(partitions: int, queue: str | None) -> list[str]:
    return [xq_name(name) for name in ([queue] if queue else all_queues(partitions))]


def _walk(
    settings: Settings, queue: str | None = None, csv: Path | None = None, keep: int | None = None
) -> Generator[Taken, None, None]:
    """Go through dead letters: RabbitMQ's, or those of a `carpark run` that has ended."""
    if csv is None:
        mover = _mover(settings)
        for name in _queues(settings.partitions, queue):
            yield from mover.walk(name, keep)
        return
    letters = LastRun(run_folder_of(csv), "", {}).letters()
    for name in _queues(MOST_PARTITIONS, queue):  # how many the run had, its letters say
        for place, (of, letter) in enumerate(letters):
            if of == name:
                yield Taken(name, place, letter.body, BasicProperties(headers=dict(letter.headers)))


def _find(settings: Settings, message_id: str, csv: Path | None = None) -> Job | None:
    with closing(_walk(settings, csv=csv)) as messages:
        return next((job_of(each, None) for each in messages if job_of(each).message_id == message_id), None)


def _move(
    move: Move, done: str, settings: Settings, ids: Sequence[str], queue: str | None, match: str, as_json: bool
) -> int:
    found: set[str] = set()
    chosen = matches(match)

    def wanted(taken: Taken) -> bool:
        job = job_of(taken)
        if not chosen(job) or (ids and job.message_id not in ids):
            return False
        found.add(job.message_id)
        return True

    count = sum(move(name, wanted, _ALL) for name in _queues(settings.partitions, queue))
    click.echo(json.dumps({done: count}) if as_json else f"{done} {count} dead {'letter' if count == 1 else 'letters'}")
    if count < len(found):
        said = f"carpark dlq: {len(found) - count} stay: longer than {MAX_MESSAGE_BYTES} bytes, they are not sent again"
        click.echo(f"{said}; purge them, or send another --body", err=True)
    return max(_missing([each for each in ids if each not in found]), EXIT_FAILED if count < len(found) else EXIT_OK)


def _missing(ids: Sequence[str]) -> int:
    for each in ids:
        click.echo(f"carpark dlq: there is no dead letter {each}; `carpark dlq list` lists them", err=True)
    return EXIT_FAILED if ids else EXIT_OK


def _json_of(job: Job) -> Line:
    return (json.dumps(job.to_dict()),)


def _row(job: Job) -> Line:
    died = f"{job.dead_at:%Y-%m-%d %H:%M:%S}" if job.dead_at else "-"
    return (job.message_id, job.queue_name, died, job.actor_name or "-", job.error or "-")


def _table(lines: Sequence[Line]) -> None:
    rows = [("id", "queue", "died (UTC)", "actor", "reason"), *lines]
    widths = [max(len(row[place]) for row in rows) for place in range(4)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in rows:
        line = "  ".join([*(f"{text:<{width}}" for text, width in zip(row, widths, strict=False)), row[4]])
        click.echo(line if room is None or len(line) <= room else line[: room - 1] + "…")
