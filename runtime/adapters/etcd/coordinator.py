"""The port Coordinator on etcd: PREFIX/view is the present view, PREFIX/log/<number> every view.

Law: one transaction writes both, under the condition that the present view is still the one that was read. A
proposal whose answer was lost is settled by asking again: either it had been accepted, then the log says so, or
somebody else was faster, then the log says that. No lease: who is alive is the record's to tell.
A watch only says when to look: what `newer` answers was read, so nothing is missed when a watch breaks.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

import orjson
from etcd3aio.kv import KVService, SortOrder, prefix_range_end

from runtime.adapters.etcd.endpoints import FAILURES, Endpoint, Endpoints
from runtime.core.view import NO_VIEW, VIEWS_KEPT, View, view_from_json, view_to_json
from runtime.errors import Unavailable

_LOOK_S: Final = 1.0  # also while no watch says anything
_WATCH_AGAIN_S: Final = 0.2


class EtcdCoordinator:
    """Implements runtime.ports.Coordinator. Belongs to the event loop it was opened in."""

    def __init__(self, endpoints: Endpoints, prefix: str, *, kept: int = VIEWS_KEPT) -> None:
        self._endpoints = endpoints
        self._present = f"{prefix}view"
        self._log = f"{prefix}log/"
        self._kept = kept

    async def view(self) -> View:
        answer = await self._endpoints.ask(lambda kv: kv.get(self._present))
        return _view_of(answer.kvs[0]) if answer.kvs else NO_VIEW

    async def propose(self, view: View) -> bool:
        """As the port says; the same proposal again, also after Unavailable, is accepted again."""
        return await self._endpoints.ask(lambda kv: self._propose_at(kv, view))

    async def newer(self, number: int, timeout_s: float) -> View | None:
        now_s = asyncio.get_running_loop().time
        end_s = now_s() + timeout_s
        watch = _Watch(self._endpoints.preferred, self._present)
        try:
            while True:
                watch.stirred.clear()
                view = await self.view()
                if view.number > number:
                    return view
                rest_s = end_s - now_s()
                if rest_s <= 0:
                    return None
                if watch.endpoint is not self._endpoints.preferred:
                    await watch.close()
                    watch = _Watch(self._endpoints.preferred, self._present)
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(rest_s, _LOOK_S)):
                        await watch.stirred.wait()
        finally:
            await watch.close()

    async def history(self, limit: int) -> list[View]:
        if limit <= 0:
            return []
        end = prefix_range_end(self._log)
        answer = await self._endpoints.ask(
            lambda kv: kv.get(self._log, end, limit=limit, sort_order=SortOrder.DESCEND)
        )
        return [_view_of(entry) for entry in answer.kvs]

    async def _propose_at(self, kv: KVService, view: View) -> bool:
        answer = await kv.get(self._present)
        before = _view_of(answer.kvs[0]).number if answer.kvs else 0
        if before == view.number - 1 and await self._replace(kv, answer.kvs, view):
            return True
        logged = await kv.get(self._logged(view.number))
        return bool(logged.kvs) and _view_of(logged.kvs[0]) == view

    async def _replace(self, kv: KVService, before: Any, view: View) -> bool:
        """Key, creation and version together name one state of it, so nobody has come in between."""
        unchanged = [
            kv.txn_compare_create_revision(self._present, before[0].create_revision if before else 0)
        ]
        if before:
            unchanged.append(kv.txn_compare_version(self._present, before[0].version))
        text = orjson.dumps(view_to_json(view))
        changes = [kv.txn_op_put(self._present, text), kv.txn_op_put(self._logged(view.number), text)]
        if view.number > self._kept:
            changes.append(kv.txn_op_delete(self._log, range_end=self._logged(view.number - self._kept + 1)))
        return bool((await kv.txn(unchanged, changes)).succeeded)

    def _logged(self, number: int) -> str:
        """Padded, so that the order of keys is that of numbers."""
        return f"{self._log}{number:020d}"


class _Watch:
    """`stirred` is set when something may have happened: a change, or a new start of the watch."""

    def __init__(self, endpoint: Endpoint, key: str) -> None:
        self.endpoint = endpoint
        self.stirred = asyncio.Event()
        self._task = asyncio.create_task(_watch(endpoint, key, self.stirred), name="noria-etcd-watch")

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def _watch(endpoint: Endpoint, key: str, stirred: asyncio.Event) -> None:
    while True:
        with suppress(*FAILURES):
            await endpoint.watch(key, stirred.set)
        await asyncio.sleep(_WATCH_AGAIN_S)


def _view_of(entry: Any) -> View:
    """Raises Unavailable for what no node wrote: to those who run, that is as good as no etcd."""
    try:
        return view_from_json(orjson.loads(entry.value))
    except ValueError as wrong:
        raise Unavailable(f"etcd: {entry.key.decode(errors='replace')} holds no view: {wrong}") from wrong
