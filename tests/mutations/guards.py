"""The guards that the guarantees stand on, each with the way to remove it and the test that has to notice.

To add one: an entry here. `texts` are exact, and must stand in the file once: what was rewritten has to be looked at
again. A mutant must still be able to run, else it proves nothing. `test` is what pytest calls it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_ACK: Final = "        for delivery in done:\n            delivery.ack()\n"
_SQL: Final = "runtime/adapters/postgres/queries"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    name: str
    path: str
    texts: tuple[tuple[str, str], ...]  # (what stands there, what stands there without the guard)
    test: str


GUARDS: Final = (
    Guard(
        name="turns of tenants",
        path="runtime/core/lanes.py",
        texts=(("                tenants.move_to_end(name)\n", ""),),
        test="tests/unit/core/test_lanes.py"
        "::test_a_few_rows_wait_for_whole_rounds_of_the_others_and_never_for_their_backlog",
    ),
    Guard(
        name="an end is told with the outcome",
        path=f"{_SQL}/settle.sql",
        texts=(
            (
                "SELECT id, ends_as FROM fenced WHERE awaited AND ends_as IS NOT NULL\n",
                "SELECT id, ends_as FROM fenced WHERE false\n",
            ),
        ),
        test="tests/contract/test_store_workflows.py::test_a_child_is_blocked_until_all_its_parents_have_ended",
    ),
    Guard(
        name="an end is counted once",
        path=f"{_SQL}/workflow.sql",
        texts=(("WHERE d.parent = i.id AND NOT d.done\n", "WHERE d.parent = i.id\n"),),
        test="tests/contract/test_store_workflows.py::test_an_end_that_is_told_again_is_counted_once",
    ),
    Guard(
        name="a parent is awaited where it runs",
        path="runtime/adapters/postgres/linking.py",
        texts=(("SQL.await_waiting, SQL.await_running, ", "SQL.await_waiting, "),),
        test="tests/contract/test_store_workflows.py"
        "::test_a_child_that_comes_while_its_parent_runs_hears_of_its_end",
    ),
    Guard(
        name="a parent is awaited under its lock",
        path=f"{_SQL}/workflow.sql",
        texts=(("     ORDER BY r.id\n       FOR UPDATE OF r\n), marked", "     ORDER BY r.id\n), marked"),),
        test="tests/integration/postgres/test_pg_workflow_races.py::test_every_end_reaches_every_child_once",
    ),
    Guard(
        name="parents are kept for their children",
        path=f"{_SQL}/repair.sql",
        texts=((" AND NOT EXISTS (SELECT FROM noria.dependence d WHERE d.parent = i.id)\n", "\n"),),
        test="tests/contract/test_store_workflows.py::test_a_parent_is_kept_until_its_children_have_ended",
    ),
    Guard(
        name="attempt in the commit",
        path=f"{_SQL}/settle.sql",
        texts=(
            (
                "WHERE r.id = i.id AND r.attempt = i.attempt AND r.incarnation = i.incarnation",
                "WHERE r.id = i.id AND r.incarnation = i.incarnation",
            ),
        ),
        test="tests/contract/test_store_settle.py::test_an_old_attempt_of_the_same_incarnation_is_fenced",
    ),
    Guard(
        name="incarnation in the commit",
        path=f"{_SQL}/settle.sql",
        texts=(
            (
                "WHERE r.id = i.id AND r.attempt = i.attempt AND r.incarnation = i.incarnation",
                "WHERE r.id = i.id AND r.attempt = i.attempt",
            ),
        ),
        test="tests/contract/test_store_settle.py::test_a_foreign_settlement_writes_nothing",
    ),
    Guard(
        name="lease wait-out: only who did not renew in time is dead",
        path=f"{_SQL}/members.sql",
        texts=(("AND (l.alive_until < clock_timestamp()\n", "AND (true\n"),),
        test="tests/contract/test_store_members.py::test_a_lease_that_ran_out_is_buried_once",
    ),
    Guard(
        name="unbroken lease of the declarer",
        path=f"{_SQL}/members.sql",
        texts=(
            ("AND me.unbroken_since <= clock_timestamp() - $2 * interval '1 second'\n", "AND $2 > 0\n"),
            ("AND w.unbroken_for >= l.lease_s * interval '1 second'", "AND w.unbroken_for IS NOT NULL"),
        ),
        test="tests/contract/test_store_members.py::test_who_just_joined_buries_nobody",
    ),
    Guard(
        name="unbroken for the lease of the other, where that is longer",
        path=f"{_SQL}/members.sql",
        texts=(("AND w.unbroken_for >= l.lease_s * interval '1 second'", "AND w.unbroken_for IS NOT NULL"),),
        test="tests/contract/test_store_members.py::test_who_has_a_longer_lease_is_given_as_long",
    ),
    Guard(
        name="the unbroken time starts anew with another PostgreSQL",
        path=f"{_SQL}/members.sql",
        texts=(
            (
                "             OR server <> (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint\n",
                "",
            ),
            (
                "       AND me.server = (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint\n",
                "",
            ),
        ),
        test="tests/integration/postgres/test_pg_leases.py::test_another_start_of_postgresql_makes_everybody_wait_for_a_lease",
    ),
    Guard(
        name="order of views in PostgreSQL: compare and set",
        path=f"{_SQL}/views.sql",
        texts=(("WHERE id = 1 AND number = $1::bigint - 1\n", "WHERE id = 1\n"),),
        test="tests/contract/test_coordinator.py::test_a_number_that_is_not_the_next_changes_nothing",
    ),
    Guard(
        name="order of views in etcd: compare and set",
        path="runtime/adapters/etcd/coordinator.py",
        texts=(
            ("if before == view.number - 1 and await", "if await"),
            ("(await kv.txn(unchanged, changes)).succeeded", "(await kv.txn([], changes)).succeeded"),
        ),
        test="tests/contract/test_coordinator.py::test_a_number_that_is_not_the_next_changes_nothing",
    ),
    Guard(
        name="stable hash of the ring",
        path="runtime/core/ring.py",
        texts=(
            (
                'return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")',
                "return hash(key) & (1 << 64) - 1",
            ),
        ),
        test="tests/unit/core/test_ring.py::test_another_process_with_another_hash_seed_builds_the_same_table",
    ),
    Guard(
        name="stable hash of slots, the same as in SQL",
        path="runtime/core/slots.py",
        texts=(
            (
                "digest = sha256(routing_key.encode()).digest()",
                "digest = hash(routing_key).to_bytes(8, 'big', signed=True)",
            ),
        ),
        test="tests/unit/core/test_slots.py::test_slots_agree_with_sql",
    ),
    Guard(
        name="an offer is acknowledged after its claim",
        path="actors/executor/offers.py",
        texts=(
            ("        failed = False\n        try:\n", f"        failed = False\n{_ACK}        try:\n"),
            (f"            failed = True\n{_ACK}", "            failed = True\n"),
        ),
        test="tests/unit/actors/test_offers_ack.py::test_an_offer_is_acknowledged_when_its_claim_is_over_and_not_before",
    ),
    Guard(
        name="only the living claim",
        path=f"{_SQL}/claim.sql",
        texts=(
            (
                "WHERE l.incarnation = $3 AND l.state < 8 AND l.alive_until > statement_timestamp())",
                "WHERE l.incarnation = $3)",
            ),
        ),
        test="tests/contract/test_store_claims.py::test_who_is_not_alive_takes_no_work",
    ),
    Guard(
        name="key lock: no turn of a key while one is under way",
        path=f"{_SQL}/keyed.sql",
        texts=(("       AND NOT EXISTS (SELECT FROM noria.running r WHERE r.actor = i.id)\n", ""),),
        test="tests/contract/test_store_keyed.py::test_a_busy_key_begins_no_second_turn",
    ),
    Guard(
        name="version of the state in the commit of a turn",
        path=f"{_SQL}/keyed.sql",
        texts=(("     WHERE a.version = i.version\n", "     WHERE i.version IS NOT NULL\n"),),
        test="tests/contract/test_store_keyed.py::test_a_turn_from_an_older_state_commits_nothing",
    ),
    Guard(
        name="revision of a fire: only the first moves the schedule on",
        path=f"{_SQL}/schedules.sql",
        texts=(
            (
                "open = $10, revision = revision + 1\n WHERE tenant = $1 AND name = $2 AND revision = $3",
                "open = $10, revision = revision + 1\n WHERE tenant = $1 AND name = $2 AND $3 > 0",
            ),
        ),
        test="tests/contract/test_store_schedules.py::test_many_at_once_fire_once",
    ),
    Guard(
        name="a fire and its tasks in one transaction",
        path="runtime/adapters/postgres/schedules.py",
        texts=(("as session, session.transaction():", "as session:"),),
        test="tests/faults/test_schedules.py::test_all_nodes_are_killed_in_the_midst_of_a_fire",
    ),
    Guard(
        name="a unique task stands in the way until it has ended, not for ever",
        path="runtime/core/unique.py",
        texts=(("return holder.stand is not Stand.ENDED", "return True"),),
        test="tests/contract/test_store_unique.py::test_until_finished_holds_through_retry_and_replay",
    ),
    Guard(
        name="retention leaves a task alone while its window lasts",
        path=f"{_SQL}/repair.sql",
        texts=(("AND u.kept_until > statement_timestamp())", "AND u.kept_until IS NULL AND false)"),),
        test="tests/contract/test_store_unique.py::test_a_window_outlives_the_task_and_retention",
    ),
    Guard(
        name="what was claimed meanwhile is not replaced",
        path="runtime/adapters/postgres/unique.py",
        texts=(
            ("        await session.fetch(SQL.unique_hold, sorted(movable))\n", "        pass\n"),
            ("    if len(rows) < len(pairs):\n", "    if not pairs:\n"),
            ("replaced_attempt=attempts[old]", "replaced_attempt=attempts.get(old, 0)"),
        ),
        test="tests/integration/postgres/test_pg_unique.py::test_a_claim_between_any_two_steps",
    ),
    Guard(
        name="the fence of a handler's transaction",
        path="runtime/adapters/postgres/transactions.py",
        texts=(("        if not fenced.places:\n            return Verdict.FENCED\n", ""),),
        test="tests/integration/postgres/test_pg_transactions.py::test_all_or_nothing",
    ),
    Guard(
        name="where the answer to a handler's commit is lost, nothing is assumed",
        path="actors/executor/transacting.py",
        texts=(("[self._settlement(run, release)]", "[self._settlement(run, move)]"),),
        test="tests/faults/test_transactions.py::test_an_answer_that_is_lost_is_looked_for",
    ),
    Guard(
        name="enqueueing by SQL is only for roles that were granted it",
        path="runtime/adapters/postgres/migrations/0009_enqueue.sql",
        texts=(("REVOKE ALL ON FUNCTION noria_api.enqueue FROM PUBLIC;\n", ""),),
        test="tests/integration/postgres/test_pg_enqueue.py"
        "::test_a_role_that_may_call_it_may_do_nothing_else",
    ),
    Guard(
        name="who is not certain of its own lease declares nobody dead",
        path="actors/janitor.py",
        texts=(("if not world.fence.passed:", "if True:"),),
        test="tests/unit/actors/test_node_actors.py"
        "::test_who_is_not_certain_of_its_own_lease_declares_nobody_dead",
    ),
)
