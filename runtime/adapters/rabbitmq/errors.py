"""What aio-pika and aiormq raise, as Unavailable. Whatever it is means one thing here: not now.

Law: only calls of the library stand inside `unavailable`; errors of our own must not hide behind it.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aio_pika.exceptions import DeliveryError, PublishError

from runtime.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def unavailable(what: str) -> Iterator[None]:
    """Raises Unavailable that says what could not be done, and why. Put it around the time-out, not inside."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # The library ends whoever waits for a connection that closes by a cancellation that nobody asked for.
        raise Unavailable(f"{what}: the connection was closed") from error
    except TimeoutError as error:
        raise Unavailable(f"{what}: RabbitMQ does not answer") from error
    except PublishError as error:  # returned: a mandatory message that no queue takes
        raise Unavailable(f"{what}: there is no such queue") from error
    except DeliveryError as error:  # negative confirm: x-overflow is reject-publish
        raise Unavailable(f"{what}: the queue is full") from error
    except Exception as error:  # the library has a zoo of them, from AMQPError to RuntimeError
        raise Unavailable(f"{what}: {type(error).__name__} {error}") from error
