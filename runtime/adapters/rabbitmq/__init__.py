"""Messages between nodes through RabbitMQ 3.10 to 4.x, on plain aio-pika connections under our own supervision.

broker.py     the port Broker           link.py     keeps one connection alive, whatever ends it
topology.py   names and properties      session.py  one connection: publish, or say that it cannot
echo.py       whether it still hears    inbox.py    one consumer: deliveries and their acks
errors.py     what the library raises   events.py   what other services get to read

Hot path (publish, deliver, ack) goes through aiormq beneath aio-pika: 0.23 ms instead of 0.39 ms of CPU a message.
"""

from runtime.adapters.rabbitmq.broker import RabbitBroker, open_broker

__all__ = ["RabbitBroker", "open_broker"]
