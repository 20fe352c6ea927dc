"""Programs that fork: what each of them begins with."""

PRELUDE = """
from gofer import *
import os, sys, threading, time, warnings

warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns when there are threads

def child(fn):
    '''Runs fn in a child; what it printed is printed here, and its exit status returned.'''
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            fn()
            sys.stdout.flush()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def in_thread(fn):
    thread = threading.Thread(target=fn)
    thread.start()
    while thread.is_alive():
        gosched()

def works():
    '''A bit of everything.'''
    ch, total = Chan(), WaitGroup()
    for n in range(100):
        total.go(ch.send, n)
    assert sum(ch.recv() for _ in range(100)) == 4950
    total.wait()
    with Group(limit=3) as g:
        tasks = [g.go(pow, n, 2) for n in range(20)]
    assert [task.join() for task in tasks] == [n * n for n in range(20)]
    sleep(0.001)
    after(0.001).recv()
    assert run(lambda: fork(current).join().id) > 1
    in_thread(lambda: fork(int).join())
    return True

def parked(n):
    gate = Chan()
    gs = [go(gate.recv_ok) for _ in range(n)]
    while not all(g.state == "waiting" for g in gs):
        gosched()
    return gate, gs
"""


def text(body):
    """The source of a program that begins with the PRELUDE; body may be indented."""
    lines = body.strip("\n").splitlines()
    cut = len(lines[0]) - len(lines[0].lstrip())
    return PRELUDE + "\n".join(line[cut:] for line in lines)
