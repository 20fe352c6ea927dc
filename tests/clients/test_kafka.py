"""confluent-kafka, whose calls are made on threads, against the broker that librdkafka has."""

import pytest

from gofer import Chan, Group, patch

from shared import calls

kafka = pytest.importorskip("confluent_kafka")

MANY = 20
MESSAGES = 100


@pytest.fixture
def offloaded():
    patch.offload("confluent_kafka")


@pytest.fixture
def broker(offloaded):
    """Its address; it lives as long as the client that has started it."""
    client = kafka.Producer(
        {"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0}
    )
    [broker] = client.list_topics(timeout=60).brokers.values()
    yield f"{broker.host}:{broker.port}"
    client.close()


@pytest.fixture
def produce(broker):
    producer = kafka.Producer({"bootstrap.servers": broker})

    def produce(topic, n):
        failed = Chan(MESSAGES)
        producer.produce(topic, f"message {n}", callback=lambda error, _: failed.send(error))
        while not len(failed):
            producer.poll(0.1)
        assert failed.recv() is None

    yield produce
    producer.close()


def consumed(broker, topic, group, most=MESSAGES):
    """The first messages of a topic, as one of a group of consumers gets them."""
    consumer = kafka.Consumer(
        {"bootstrap.servers": broker, "group.id": group, "auto.offset.reset": "earliest"}
    )
    try:
        consumer.subscribe([topic])
        while most:
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                most -= 1
                yield message.value().decode()
    finally:
        consumer.close()


def test_all_at_once(produce, broker):
    calls.all_at_once(lambda n: produce("all", n), MESSAGES)
    with Group() as g:
        tasks = [g.go(sorted, consumed(broker, "all", f"group {n}")) for n in range(MANY)]
    messages = sorted(f"message {n}" for n in range(MESSAGES))
    assert [task.join() for task in tasks] == [messages] * MANY


def test_all_waiting(produce, broker, one_worker):
    produce("waiting", 0)
    waiting = 0

    def call(n):
        nonlocal waiting
        messages = consumed(broker, "waiting", f"group {n}", 2)
        assert next(messages) == "message 0"
        waiting += 1
        assert next(messages) == "message 1"
        messages.close()

    calls.all_waiting(call, MANY, lambda: waiting, lambda: produce("waiting", 1))


def test_called_off(produce, broker, rng):
    """Producing: a call that is called off has produced its message, or not."""
    calls.CallingOff(rng)(lambda n: produce("called off", n))
    produce("called off", -1)
    for message in consumed(broker, "called off", "group", 1_000_000):
        if message == "message -1":
            break
