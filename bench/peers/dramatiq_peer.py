"""Dramatiq as it comes: persistent messages, no confirms, acknowledged after the body, no results.

dramatiq dramatiq_peer …          python dramatiq_peer.py COUNT
"""

import os
import sys

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

MARKS = os.open(os.environ["PEER_MARKS"], os.O_WRONLY | os.O_APPEND)
DATA = {"user_id": 123456, "email": "someone.with.a.name@example.org", "tags": ["a", "b"], "note": "x" * 80}

broker = RabbitmqBroker(url=os.environ["PEER_AMQP_URL"])
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(i: int, data: object = None) -> None:
    os.write(MARKS, b".")


if __name__ == "__main__":
    broker.declare_queue("default", ensure=True)
    print("begin", flush=True)
    for number in range(int(sys.argv[1])):
        noop.send(i=number, data=DATA)
    broker.close()  # else the last ones may be lost with the connection
