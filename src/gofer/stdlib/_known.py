"""Libraries whose blocking functions `patch.offload` knows, so that nobody has to name them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from gofer.blocking import blocking
from gofer.stdlib import _sqlite3
from gofer.stdlib._turns import Turn, in_turns

__all__ = ["EVERYWHERE", "KNOWN", "StandIn", "on_pool"]

StandIn = Callable[..., Any]


class Library(NamedTuple):
    module: str  # where its functions stand
    stand_ins: Mapping[str, StandIn]


def on_pool(original: StandIn, *args: Any, **kwargs: Any) -> Any:
    return blocking(original, *args, **kwargs)


# --- confluent_kafka ----------------------------------------------------------------------------

_PRODUCER: Final = (
    "abort_transaction close commit_transaction flush init_transactions list_topics poll purge "
    "send_offsets_to_transaction"
)
_CONSUMER: Final = (
    "close commit committed consume get_watermark_offsets list_topics offsets_for_times poll seek "
    "unsubscribe"
)
_KAFKA: Final = {
    **{f"Producer.{name}": on_pool for name in _PRODUCER.split()},
    **{f"Consumer.{name}": on_pool for name in _CONSUMER.split()},
}

# --- grpc: what streams waits for a condition, and parks ----------------------------------------

_GRPC: Final = {
    "_UnaryUnaryMultiCallable._blocking": on_pool,
    "_StreamUnaryMultiCallable._blocking": on_pool,
}

# --- mysqlclient: a connection bears one call at a time -----------------------------------------


def _turn_of(connection: Any) -> Turn | None:
    attributes: dict[str, Turn] | None = getattr(connection, "__dict__", None)
    if attributes is None:  # one of the module _mysql itself
        return None
    return attributes.setdefault("_turn", Turn())


def _close(original: StandIn, connection: Any) -> object:
    """When the call ends that goes on after its goroutine was cancelled; it is quick itself."""
    turn = _turn_of(connection)
    return original(connection) if turn is None else turn.last(partial(original, connection))


_CONNECTION: Final = (
    "autocommit change_user commit discard_result kill next_result ping query "
    "read_query_result rollback select_db send_query set_character_set set_server_option shutdown "
    "stat store_result"
)
_MYSQL: Final = {
    **dict.fromkeys(("Connect", "Connection", "connect"), on_pool),
    "_mysql.connection.close": _close,
    **{f"_mysql.connection.{name}": in_turns(_turn_of) for name in _CONNECTION.split()},
}

KNOWN: Final[Mapping[str, Library]] = {
    "confluent_kafka": Library("confluent_kafka", _KAFKA),
    "grpc": Library("grpc._channel", _GRPC),
    "MySQLdb": Library("MySQLdb", _MYSQL),
    "sqlite3": Library("sqlite3", _sqlite3.STAND_INS),
}
EVERYWHERE: Final = _sqlite3.EVERYWHERE  # in plain threads, too
