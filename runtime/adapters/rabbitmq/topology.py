"""What lives in RabbitMQ: names and properties.

noria.work.<incarnation>      offers; refuses when full           noria.control.<incarnation>   all else; drops the oldest
noria.members (fanout)        to every control queue              noria.undecodable (fanout)    what we could not read
noria.events (topic)          task.<state>.<handler>              noria.dead                    task.failed.# of the above

Queues of an incarnation are durable (transient shared queues are refused from RabbitMQ 4.3 on) and vanish some
time after their owner; the incarnation in the name means that no two starts of a node ever share one. What is
in them is not written to disk. The classic type is named, because a virtual host may prefer another.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from aio_pika import ExchangeType
from aio_pika.exceptions import ChannelPreconditionFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import AbstractConnection
    from pamqp.common import FieldTable

MEMBERS: Final = "noria.members"
EVENTS: Final = "noria.events"
UNDECODABLE: Final = "noria.undecodable"
DEAD: Final = "noria.dead"
PREFETCH: Final = 100  # offers delivered and not yet acknowledged
WORK_MAX: Final = 1000  # messages that wait beyond those; credit keeps it nearly empty
CONTROL_MAX: Final = 1000
UNDECODABLE_MAX: Final = 1000
DEAD_MAX: Final = 100_000
_WORK_EXPIRES_MS: Final = 600_000
_CONTROL_EXPIRES_MS: Final = 60_000
_log = logging.getLogger(__name__)


def work_queue(incarnation: int) -> str:
    return f"noria.work.{incarnation}"


def control_queue(incarnation: int) -> str:
    return f"noria.control.{incarnation}"


class InboxKind(NamedTuple):
    """One of the two queues that every incarnation has."""

    queue: Callable[[int], str]  # its name, by incarnation
    declare: Callable[[AbstractConnection, int], Awaitable[None]]  # it and all it needs
    prefetch: int  # 0: acknowledged as it is sent
    through: str  # the exchange by which it is reached, and has to reach itself


async def _declare_work(connection: AbstractConnection, incarnation: int) -> None:
    async with connection.channel() as channel:
        await channel.declare_exchange(UNDECODABLE, ExchangeType.FANOUT, durable=True)
        await channel.declare_queue(
            work_queue(incarnation),
            durable=True,
            arguments={
                "x-queue-type": "classic",
                "x-expires": _WORK_EXPIRES_MS,
                "x-max-length": WORK_MAX,
                "x-overflow": "reject-publish",
                "x-dead-letter-exchange": UNDECODABLE,
            },
        )
    await _declare_shared(connection, UNDECODABLE, UNDECODABLE_MAX, (UNDECODABLE, ""))


async def _declare_control(connection: AbstractConnection, incarnation: int) -> None:
    async with connection.channel() as channel:
        await channel.declare_exchange(MEMBERS, ExchangeType.FANOUT, durable=True)
        await channel.declare_exchange(EVENTS, ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue(
            control_queue(incarnation),
            durable=True,
            arguments=_dropping(CONTROL_MAX) | {"x-expires": _CONTROL_EXPIRES_MS},
        )
        await queue.bind(MEMBERS)
    await _declare_shared(connection, DEAD, DEAD_MAX, (EVENTS, "task.failed.#"))


async def _declare_shared(
    connection: AbstractConnection, name: str, length_max: int, binding: tuple[str, str]
) -> None:
    """A queue that outlives us. Where somebody has made it otherwise, theirs is as good: a node must not fail
    to come up because an operator wanted more dead letters."""
    async with connection.channel() as channel:
        try:
            await channel.declare_queue(name, durable=True, arguments=_dropping(length_max))
        except ChannelPreconditionFailed as error:  # it has closed the channel
            _log.info("queue %s is used as it is: %s", name, error)
    async with connection.channel() as channel:
        queue = await channel.get_queue(name, ensure=False)
        await queue.bind(*binding)


def _dropping(length_max: int) -> FieldTable:
    return {"x-queue-type": "classic", "x-max-length": length_max, "x-overflow": "drop-head"}


WORK: Final = InboxKind(work_queue, _declare_work, PREFETCH, "")
CONTROL: Final = InboxKind(control_queue, _declare_control, 0, MEMBERS)
