"""patch.offload, entry points, and what is done to psycopg2 and psycopg."""

import collections
import fcntl
import sqlite3
import sys
import textwrap
import threading
import time
import zipfile

import pytest

from gofer import Group, cancel_scope, context, fork, gosched, patch, patched, unpatch

from shared import in_thread
from shared.canary import beats_under

pytestmark = pytest.mark.usefixtures("nothing_left", "cooperative", "not_cancelled")

MANY = 20


@pytest.fixture
def module(tmp_path, monkeypatch):
    """`module(name, source)` can be imported from then on, and is forgotten in the end."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(name, source):
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source))
        made.append(name)
        return path

    yield make
    for name in made:
        sys.modules.pop(name, None)


def where():
    return threading.get_native_id()


# --- functions and methods in C -----------------------------------------------------------------


def test_a_function_in_c(one_worker, tmp_path):
    taken_before = fcntl.flock
    patch.offload("fcntl", "flock")
    assert fcntl.flock is taken_before
    with open(tmp_path / "lock", "w") as one, open(tmp_path / "lock", "w") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        beats_under(
            lambda: taken_before(other, fcntl.LOCK_EX), lambda: fcntl.flock(one, fcntl.LOCK_UN)
        )
        with pytest.raises(BlockingIOError):
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(TypeError):
            fcntl.flock()


def numbers(threads):
    threads.append(where())
    yield from range(3)


def test_a_method_in_c(one_worker):
    made_before = collections.deque().extend
    patch.offload("collections", "deque.extend")
    threads = []
    queue = collections.deque()
    queue.extend(numbers(threads))
    made_before(numbers(threads))
    assert list(queue) == [0, 1, 2]
    assert where() not in threads
    del threads[:]
    in_thread(queue.extend, numbers(threads))
    assert len(threads) == 1
    unpatch()
    queue.extend(numbers(threads))
    assert threads[1:] == [where()]


def test_again_after_it_was_undone():
    for _ in range(300):  # what it takes for one is not used up
        patch.offload("collections", "deque.extend")
        patch.offload("collections", "deque.extend")
        assert patched()["collections"]
        unpatch()
        assert "collections" not in patched()


def test_results_errors_and_names():
    patch.offload("builtins", "divmod", "sorted")
    assert divmod(7, 2) == (3, 1)
    assert sorted([3, 1, 2], reverse=True) == [3, 2, 1]
    with pytest.raises(ZeroDivisionError):
        divmod(1, 0)


def test_cancelled():
    patch.offload("collections", "deque.extend")
    reached, go_on = threading.Event(), threading.Event()

    def slowly():
        reached.set()
        go_on.wait()
        yield 1

    queue = collections.deque()
    with cancel_scope() as scope:
        extending = fork(queue.extend, slowly())
        reached.wait()
        scope.cancel()
    assert isinstance(extending.exception(), context.Canceled)
    assert not queue
    go_on.set()
    while not queue:  # the thread goes on
        gosched()


def test_what_can_not_be():
    for names, error, text in (
        ((), ValueError, "name them"),
        (("flok",), ValueError, "fcntl has no flok"),
        (("deque.extend",), ValueError, "fcntl has no deque.extend"),
        (("LOCK_EX",), TypeError, "neither a function nor a method"),
    ):
        with pytest.raises(error, match=text):
            patch.offload("fcntl", *names)
    with pytest.raises(TypeError, match="neither a function nor a method"):
        patch.offload("collections", "deque")
    with pytest.raises(ValueError, match="is cooperative already"):
        patch.offload("time", "sleep")


# --- functions and methods in Python ------------------------------------------------------------


def test_functions_in_python(module):
    module("restlib", """
        import threading

        def where(*args):
            return threading.get_native_id(), args

        class Base:
            def where(self):
                return threading.get_native_id()

        class Derived(Base):
            pass
    """)  # fmt: skip
    patch.offload("restlib", "where", "Derived.where")
    import restlib

    before = vars(restlib.Base)["where"]
    here = where()
    thread, args = restlib.where(1, 2)
    assert thread != here
    assert args == (1, 2)
    assert restlib.Derived().where() != here
    assert restlib.Base().where() == here
    assert in_thread(lambda: restlib.where()[0] != here)
    unpatch()
    assert restlib.where()[0] == here
    assert "where" not in vars(restlib.Derived)
    assert vars(restlib.Base)["where"] is before


def test_a_name_that_is_wrong_is_told_by_the_import(module):
    module("restlib", "")
    patch.offload("restlib", "query")
    with pytest.raises(ValueError, match="restlib has no query"):
        import restlib  # noqa: F401


def test_without_patch(program):
    result = program("""
        import fcntl, threading
        from gofer import fork, patch, patched

        patch.offload("fcntl", "flock")
        print([name for name, on in patched().items() if on])
        with open(__file__) as one, open(__file__) as other:
            fcntl.flock(one, fcntl.LOCK_EX)
            waiting = fork(fcntl.flock, other, fcntl.LOCK_EX)
            while waiting.state != "waiting":
                fork(int).join()
            fcntl.flock(one, fcntl.LOCK_UN)
            waiting.join()
    """)
    assert result == (0, "['fcntl']\n", "")


# --- sqlite3 ------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path):
    patch.offload("sqlite3")
    connection = sqlite3.connect(tmp_path / "data", timeout=90, isolation_level=None)
    yield connection
    connection.close()


def test_sqlite_parks(one_worker, database):
    gate = threading.Event()
    threads = []

    def wait():
        threads.append(where())
        gate.wait()
        return 7

    database.create_function("wait", 0, wait)
    query = database.execute
    assert beats_under(lambda: query("select wait()").fetchone(), gate.set) == (7,)
    assert where() not in threads


def test_sqlite_many_at_once(tmp_path, database):
    """On one connection and on others; a function in Python needs the GIL that another may hold."""
    database.create_function("double", 1, lambda n: (time.sleep(0.0001), 2 * n)[1])
    database.execute("create table numbers (n)")
    path = tmp_path / "data"

    def use(n):
        assert database.execute("select double(?)", (n,)).fetchall() == [(2 * n,)]
        cursor = database.cursor()
        cursor.execute("insert into numbers values (?)", (n,))
        other = sqlite3.connect(path, 90.0, 0, None, True)
        other.executemany("insert into numbers values (?)", [(n,)] * 2)
        with other:
            other.execute("begin immediate")
            other.execute("insert into numbers values (?)", (n,))
        other.close()

    with Group() as g:
        for n in range(MANY):
            g.go(use, n)
    assert database.execute("select count(*), sum(n) from numbers").fetchone() == (
        4 * MANY,
        4 * sum(range(MANY)),
    )
    assert sorted(n for (n,) in database.execute("select n from numbers"))[:5] == [0, 0, 0, 0, 1]


def test_sqlite_iterating_beside_a_function_in_python(database):
    """Who reads a column waits, with the GIL, for a lock that the function's caller has."""
    database.create_function("slowly", 1, lambda n: (time.sleep(0.00001), n)[1])
    numbers = "with recursive t(n) as (select 1 union all select n + 1 from t limit 50) "

    def query():
        return sum(n for (n,) in database.execute(f"{numbers} select slowly(n) from t").fetchall())

    def iterate(k):
        cursor = database.execute(f"{numbers} select slowly(n) from t")
        assert isinstance(cursor, sqlite3.Cursor)
        database.create_function(f"other{k}", 0, lambda: 1)
        return sum(n for (n,) in cursor)

    with Group() as g:
        tasks = [g.go(query) for _ in range(10)] + [g.go(iterate, k) for k in range(10)]
    assert {task.join() for task in tasks} == {sum(range(51))}


def test_sqlite_called_back_it_may_be_asked(one_worker, database):
    database.execute("create table numbers (n)")
    database.executemany("insert into numbers values (?)", [(n,) for n in range(10)])

    def total():
        return sum(n for (n,) in database.execute("select n from numbers"))

    database.create_function("total", 0, total)
    assert database.execute("select total()").fetchone() == (45,)
    rows = iter(database.execute("select n, total() from numbers"))
    assert next(rows) == (0, 45)
    assert [total for _, total in rows] == [45] * 9


def test_sqlite_cursors(database):
    class Mine(sqlite3.Cursor):
        pass

    for cursor in (database.cursor(Mine), database.cursor(factory=Mine)):
        assert isinstance(cursor, Mine)
        assert list(cursor.execute("select 1 union select 2")) == [(1,), (2,)]
    assert isinstance(database.cursor(), sqlite3.Cursor)
    assert type(database.cursor()).__name__ == "Cursor"
    with pytest.raises(TypeError):
        database.cursor(None)
    database.executescript("create table a (n); create table b (n);")


def test_sqlite_cancelled(one_worker, database):
    """The call goes on to its end, and whoever comes next waits for that."""
    gate, reached, order = threading.Event(), threading.Event(), []

    def wait():
        reached.set()
        gate.wait()
        order.append("first")
        return 1

    database.create_function("wait", 0, wait)
    database.create_function("note", 0, lambda: order.append("second") or 2)
    with cancel_scope() as scope:
        first = fork(database.execute, "select wait()")
        reached.wait()
        waiting = fork(database.execute, "select note()")
        while waiting.state != "waiting":
            gosched()
        scope.cancel()
    for one in (first, waiting):
        assert isinstance(one.exception(), context.Canceled)
    second = fork(database.execute, "select note()")
    gate.set()
    assert second.join().fetchone() == (2,)
    assert order == ["first", "second"]


def test_sqlite_in_threads_and_before(tmp_path):
    before = sqlite3.connect(tmp_path / "data")
    patch.offload("sqlite3")
    assert before.execute("select 1").fetchall() == [(1,)]
    before.close()
    connection = in_thread(sqlite3.connect, tmp_path / "data")
    assert connection.execute("select 2").fetchone() == (2,)
    assert in_thread(lambda: connection.execute("select 3").fetchone()) == (3,)
    connection.close()

    class Mine(sqlite3.Connection):
        pass

    with sqlite3.connect(tmp_path / "data", factory=Mine) as mine:
        assert isinstance(mine, Mine)
        mine.execute("create table t (n)")
    assert mine.execute("select count(*) from t").fetchone() == (0,)
    mine.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        mine.execute("select 1")
    with pytest.raises(TypeError):
        sqlite3.connect()


# --- libraries that bring what it takes ---------------------------------------------------------

LIBRARY = """
    import threading

    log = []

    def _wait():
        log.append("waits")

    def cooperative():
        log.append("patched")
        return lambda: log.append("undone")
"""


@pytest.fixture
def library(module, tmp_path):
    module("restlib", LIBRARY)
    info = tmp_path / "restlib-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: restlib\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gofer.patch]\nrestlib = restlib:cooperative\n")


def test_entry_points(library):
    unpatch()
    patch()
    import restlib

    assert restlib.log == ["patched"]
    patch()
    assert restlib.log == ["patched"]
    unpatch()
    assert restlib.log == ["patched", "undone"]
    patch()
    assert restlib.log == ["patched", "undone", "patched"]
    unpatch()
    patch(exclude=["libraries"])
    assert len(restlib.log) == 4


def test_entry_points_of_a_program(program, library, tmp_path):
    result = program(
        """
        import sys
        from gofer import patch

        patch()
        print("restlib" in sys.modules, "importlib.metadata" in sys.modules)
        import restlib
        print(restlib.log, restlib.__loader__.name, "exec_module" in vars(restlib.__loader__))
        """,
        PYTHONPATH=str(tmp_path),
        PYTHONNOUSERSITE="1",
    )
    assert result.status == 0
    first, second = result.out.splitlines()
    assert first.startswith("False")
    assert second.startswith("['patched'] restlib")


def test_a_module_that_fails_to_import_is_asked_again(module, library):
    path = module("restlib", "raise OSError('not now')")
    unpatch()
    patch()
    with pytest.raises(OSError, match="not now"):
        import restlib
    path.write_text(textwrap.dedent(LIBRARY))
    sys.path_importer_cache.clear()
    import restlib

    assert restlib.log == ["patched"]


def test_from_a_zip_file(tmp_path, monkeypatch):
    """One loader for all modules, of which one imports the other."""
    archive = tmp_path / "library.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("ziplib.py", "import zipother\n\ndef where():\n    return zipother.where()\n")
        file.writestr(
            "zipother.py", "import threading\nwhere = lambda: threading.get_native_id()\n"
        )
    monkeypatch.syspath_prepend(str(archive))
    patch.offload("ziplib", "where")
    try:
        import ziplib

        assert ziplib.where() != where()
    finally:
        sys.modules.pop("ziplib", None)
        sys.modules.pop("zipother", None)


# --- psycopg2, psycopg --------------------------------------------------------------------------


def test_psycopg2_has_a_callback(module):
    """As the real one has it; see test_patch_postgres for that."""
    module("psycopg2.__init__", "from psycopg2 import _psycopg")
    module("psycopg2._psycopg", """
        callback = None

        def set_wait_callback(function):
            global callback
            callback = function

        def get_wait_callback():
            return callback
    """)  # fmt: skip
    try:
        import psycopg2

        library = psycopg2._psycopg
        assert library.callback is not None
        unpatch()
        assert library.callback is None
        library.callback = own = object()
        patch()
        unpatch()
        assert library.callback is own
    finally:
        sys.modules.pop("psycopg2", None)
