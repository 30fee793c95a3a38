"""Celery as it comes, its fastest way: persistent messages, no confirms, acknowledged before the body, no results.

celery -A celery_peer worker …          python celery_peer.py COUNT
"""

import os
import sys

from celery import Celery

MARKS = os.open(os.environ["PEER_MARKS"], os.O_WRONLY | os.O_APPEND)
DATA = {"user_id": 123456, "email": "someone.with.a.name@example.org", "tags": ["a", "b"], "note": "x" * 80}

app = Celery("celery_peer", broker=os.environ["PEER_AMQP_URL"])
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=64, worker_send_task_events=False)


@app.task(name="noop")
def noop(i: int, data: object = None) -> None:
    os.write(MARKS, b".")


if __name__ == "__main__":
    with app.connection_for_write() as connection:
        producer = app.amqp.Producer(connection, auto_declare=False)
        print("begin", flush=True)
        for number in range(int(sys.argv[1])):
            noop.apply_async(kwargs={"i": number, "data": DATA}, producer=producer)
