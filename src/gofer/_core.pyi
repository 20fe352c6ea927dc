"""Types of the C core. Everything public in it is documented where it is re-exported."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from types import CodeType, GenericAlias, TracebackType
from typing import Any, Final, Generic, Literal, NoReturn, ParamSpec, TypeAlias, TypeVar, final

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_T_contra = TypeVar("_T_contra", contravariant=True)
_P = ParamSpec("_P")

Duration: TypeAlias = float | timedelta

# --- goroutines -----------------------------------------------------------------------------

_State: TypeAlias = Literal["runnable", "running", "waiting", "dead"]

@final
class _Unset: ...

class Goroutine:
    name: str
    @property
    def id(self) -> int: ...
    @property
    def state(self) -> _State: ...
    @property
    def done(self) -> bool: ...
    def join(self) -> Any: ...

class Task(Goroutine, Generic[_T_co]):
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def join(self) -> _T_co: ...
    def exception(self) -> BaseException | None: ...
    def cancel(self) -> None: ...

def go(fn: Callable[_P, object], /, *args: _P.args, **kwargs: _P.kwargs) -> Goroutine: ...
def fork(fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Task[_T]: ...
def fork_apart(
    told: Callable[[], object], run: Callable[[Callable[..., _T]], object], fn: Callable[..., _T], /
) -> Task[Any]:
    """`fork(run, fn)`, by somebody who may be about to block the calling thread.

    It bears the name of `fn`, and calls `told()` when it ends, also if it was ended before it had
    begun.
    """

def current() -> Goroutine: ...
def gosched() -> None: ...

# --- channels -------------------------------------------------------------------------------

@final
class Chan(Generic[_T]):
    def __new__(cls, cap: int = 0) -> Chan[_T]: ...
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def send(self, value: _T, /) -> None: ...
    def recv(self) -> _T: ...
    def recv_ok(self) -> tuple[_T, Literal[True]] | tuple[None, Literal[False]]: ...
    def close(self) -> None: ...
    def __iter__(self) -> Iterator[_T]: ...
    def __next__(self) -> _T: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> Literal[True]: ...
    @property
    def cap(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    @property
    def sender(self) -> SendChan[_T]: ...
    @property
    def receiver(self) -> RecvChan[_T]: ...

@final
class SendChan(Generic[_T_contra]):
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def send(self, value: _T_contra, /) -> None: ...
    def close(self) -> None: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> Literal[True]: ...
    @property
    def cap(self) -> int: ...
    @property
    def closed(self) -> bool: ...

@final
class RecvChan(Generic[_T_co]):
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def recv(self) -> _T_co: ...
    def recv_ok(self) -> tuple[_T_co, Literal[True]] | tuple[None, Literal[False]]: ...
    def __iter__(self) -> Iterator[_T_co]: ...
    def __next__(self) -> _T_co: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> Literal[True]: ...
    @property
    def cap(self) -> int: ...
    @property
    def closed(self) -> bool: ...

_Case: TypeAlias = Callable[[], Any] | tuple[Callable[[Any], None], Any] | None

def here() -> int:
    """The number of the bubble that the caller is in; 0 for none."""

def chan_in(bubble: int, cap: int, /) -> Chan[Any]:
    """A channel as if it had been made in that bubble."""

def never() -> RecvChan[Any]:
    """On which nothing ever arrives, inside a bubble as outside."""

def closed() -> Chan[Any]:
    """One that is closed already."""

def select(*cases: _Case, default: bool = False) -> tuple[int, Any]: ...

# --- contexts -------------------------------------------------------------------------------

class Branch:
    """The tree that nodes of contexts form; `csrc/branch.c` tells what must stay true."""

    def __init__(self, parent: Branch | None = None, /) -> None: ...
    above: Any
    """The nearest Branch on the way to the root that has pins, or None."""
    pins: dict[Any, None] | None
    outcome: Any
    """None until it ends, then always the same."""
    @property
    def bubble(self) -> int:
        """The number of the bubble in which it was made; 0 for none."""

    @property
    def ended(self) -> bool:
        """It and everything below it has its outcome and has been told."""

    def watch(self) -> None:
        """From now on `tell` is called when it ends; look at the outcome afterwards."""

    def end(self, outcome: object, /) -> None:
        """Give it and everything below it that outcome, unless they have one, and tell them."""

# --- time -----------------------------------------------------------------------------------

def sleep(d: Duration, /) -> None: ...
def now() -> float: ...
def after(d: Duration, /) -> RecvChan[float]: ...
def after_func(d: Duration, fn: Callable[..., object], /, *args: Any) -> Timer: ...

@final
class Timer:
    def __new__(cls, d: Duration, /) -> Timer: ...
    @property
    def c(self) -> RecvChan[float]: ...
    def stop(self) -> bool: ...
    def reset(self, d: Duration, /) -> bool: ...

def ticker(d: Duration, /) -> Timer:
    """A timer that fires every `d` seconds; `reset` changes the period."""

# --- cancellation ---------------------------------------------------------------------------

@final
class cancel_scope:
    @property
    def cancelled(self) -> bool: ...
    def cancel(self) -> None: ...
    def __enter__(self) -> cancel_scope: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> bool: ...

@final
class timeout:
    def __new__(cls, d: Duration | None, /) -> timeout: ...
    @property
    def expired(self) -> bool: ...
    def __enter__(self) -> timeout: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> Literal[False]: ...

@final
class shield:
    def __enter__(self) -> shield: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> Literal[False]: ...

# --- locks ----------------------------------------------------------------------------------

@final
class WaitGroup:
    def add(self, n: int = 1, /) -> None: ...
    def done(self) -> None: ...
    def wait(self) -> None: ...
    def go(self, fn: Callable[_P, object], /, *args: _P.args, **kwargs: _P.kwargs) -> Goroutine: ...
    def __enter__(self) -> WaitGroup: ...
    def __exit__(self, *exc: object) -> None: ...

@final
class Mutex:
    def lock(self) -> None: ...
    def unlock(self) -> None: ...
    def try_lock(self) -> bool: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *exc: object) -> None: ...

@final
class Semaphore:
    def __new__(cls, n: int, /) -> Semaphore: ...
    def acquire(self, n: int = 1, /) -> None: ...
    def release(self, n: int = 1, /) -> None: ...
    def try_acquire(self, n: int = 1, /) -> bool: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *exc: object) -> None: ...

# --- descriptors ----------------------------------------------------------------------------

FD_READ: Final = 1
FD_WRITE: Final = 2
FD_URGENT: Final = 4
FD_BROKEN: Final = 8
FD_CLOSED: Final = 16

def wait_fd(fd: Any, events: int, timeout: Duration | None, /) -> int:
    """What it is ready for; 0 when the time was over. FD_CLOSED when it is not open any more."""

def wait_fds(fds: list[tuple[int, int]], timeout: Duration | None, /) -> list[int]: ...
def fd_closing(fd: int, /) -> None:
    """It is about to be closed: whoever waits for it gets FD_CLOSED."""

def fd_closed(fd: int, /) -> None:
    """It has been closed: so does who has begun to wait since `fd_closing`."""

def interrupted(*args: object) -> None:
    """The handler of SIGINT, in place of Python's own: a KeyboardInterrupt for goroutine 1."""

# --- the cooperative standard library -------------------------------------------------------

def patch_part(part: str, on: bool, /) -> int:
    """Exchange the functions of a part, or put them back; how many there are."""

def patch_leaf(name: str, stand_in: Callable[..., object], /) -> None:
    """`stand_in(original, *as it was called)` is what the function does in a goroutine."""

def patch_function(o: Any, stand_in: Callable[..., object], everywhere: bool, /) -> bool:
    """The same for any function or method in C, until `patch_function_back`; False if it is none.

    With `everywhere` in plain threads, too.
    """

def patch_function_back(o: Any, /) -> None: ...
def patch_queues(on: bool, /) -> None: ...
def patch_locals(on: bool, /) -> None: ...
def patch_waits() -> bool:
    """Whether a goroutine waits for what only a patched function would wake it from."""

def patch_know_ssl(sample: Any, ref: Any, double: type, /) -> None:
    """Where in a `_SSLSocket` the weak reference to its socket lies, found from a sample."""

def await_lock(lock: Any, seconds: float | None, /) -> bool:
    """`acquire()` of a `threading.Lock` that stands for an event: called off at any moment."""

def patch_lines(type: type, on: bool, /) -> None:
    """Iterating over buffered files of that type."""

def patch_end() -> None:
    """From now on everything is as before, in all goroutines."""

def poll_registered(poll: Any, /) -> dict[int, int]:
    """What an object of `select.poll()` waits for."""

def signals_begin(mask: int, takes: bool, /) -> tuple[int, int]:
    """From now on signals of the mask (bit 0: number 1) are given to the caller, or only told of.

    A number for `signals_end`, and a descriptor that becomes readable then. On Linux.
    """

def signals_end(number: int, /) -> tuple[int, int, int, int, int, int, int] | None:
    """Not any more; what of `signal.struct_siginfo` has been given."""

def signal_fd(mask: int, /) -> int:
    """A new descriptor that is readable while one of them is there and blocked. On Linux."""

def parks() -> bool:
    """Whether a call of the standard library is to park its goroutine, and not its thread."""

# --- the end of a goroutine ------------------------------------------------------------------

def hold_end() -> None:
    """Until `release_end`, no GoroutineExit in the calling goroutine, wherever it is.

    Raises one that was on its way. Counted; does nothing in a plain thread.
    """

def release_end() -> None:
    """Undo one `hold_end`; what was held off comes soon."""

# --- threads that make blocking calls -------------------------------------------------------

def may_wait() -> bool:
    """Whether the caller is a goroutine, and no plain thread.

    Raises there what an operation that waits would raise at once.
    """

def expect_threads() -> None:
    """From now on plain threads can use the library, also when no descriptor is free any more.

    `OSError` when none is now, `RuntimeError` when there can be no thread.
    """

def thread_rests() -> None:
    """The calling thread does only what it is given: by itself it is no hope for who waits."""

def before_wait(fn: Callable[[], object] | None, /) -> None:
    """In a plain thread: have `fn` called before the thread next waits here, and not again."""

def call_under_way() -> object:
    """Until `call_over` of what it returns there is no deadlock: a thread works for somebody."""

def call_over(call: object, /) -> None: ...
def reserve() -> object:
    """While that lives the calling thread, if it is a worker, starts no goroutines.

    Its thread runs an event loop, and what has started here would stand still with every wait.
    """

def look_for_deadlock() -> None:
    """A call is over and has woken nobody."""

# --- runtime --------------------------------------------------------------------------------

def gomaxprocs(n: int | None = None, /) -> int: ...
def num_goroutine() -> int: ...
def stats() -> dict[str, int]: ...
def lock_os_thread() -> None: ...
def unlock_os_thread() -> None: ...

# One row a goroutine: the goroutine, state, wait reason ("" unless waiting), what it waits on (a
# description), monotonic second it began to wait, frames (innermost first; code object and line),
# (code object, line) where it was started, id of the goroutine that started it.
_Row: TypeAlias = tuple[
    Goroutine, _State, str, str, float, list[tuple[Any, int]], tuple[Any, int] | None, int
]

def snapshot() -> list[_Row]: ...

# --- for the Python half of the package ---------------------------------------------------------

def set_hooks(
    *,
    panic: Callable[[Goroutine, BaseException], None],
    child_ended: Callable[[BaseException | None], NoReturn],
    deadlock_notes: Callable[[bool], list[str]],
    swallows: Callable[[Goroutine], None],
    home: str,
) -> None: ...
def when_used(fn: Callable[[], object] | None, /) -> Callable[[], object] | None:
    """Have `fn` called when the main thread uses the library for the first time; the one before."""

def begin_run() -> int: ...
def end_run(outer: int, /) -> None: ...
def park_forever() -> NoReturn: ...
def set_exit_status(status: int, /) -> None: ...
def origin(goroutine: Goroutine, /) -> tuple[CodeType, int, int] | None:
    """Code object and line where it was started, and the id of the goroutine that did so."""

def is_cancellation(error: BaseException, exit: bool, /) -> bool:
    """Whether it is Cancelled (or, with `exit`, GoroutineExit), or a group of nothing else."""

@final
class bubble:
    """The scope of a bubble; `panic` is called in place of a panic inside."""

    def enter(self, panic: Callable[[Goroutine, BaseException], None], /) -> None: ...
    def leave(self, error: BaseException | None, /) -> bool: ...
    def cancel(self) -> None: ...
    def join(self) -> None: ...

def bubble_wait() -> None: ...
def explore_begin(
    *,
    mode: int,
    seed: int,
    depth: int,
    length: int,
    bound: int,
    max_choices: int,
    prefix: list[int],
) -> None: ...
def explore_end() -> tuple[list[tuple[int, int]], bool]: ...
def explore_trace(
    known: dict[str, bool],
    ask: Callable[[str], bool],
    lines: list[tuple[int, str, CodeType, int]] | None,
    /,
) -> None: ...

@final
class group_scope:
    """The scope of a Group: a cancel scope that counts the tasks that were started in it."""

    @property
    def cancelled(self) -> bool: ...
    def enter(self) -> group_scope: ...
    def leave(self, error: BaseException | None, /) -> bool: ...
    def cancel(self) -> None: ...
    def go(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Task[_T]: ...
    def wait(self) -> None: ...
