"""Whether something parks its goroutine, or blocks its worker."""

from gofer import Chan, fork, gosched

BEATS = 20


def beats_under(operation, release):
    """What operation() returns, called while a goroutine that was there before it beats.

    That one calls release() in the end. Were its worker blocked, it never would: with one worker,
    as in the tests that use this, there is no other that could run it.
    """
    begun = Chan()
    beats = []

    def canary():
        begun.send(None)
        for beat in range(BEATS):
            gosched()
            beats.append(beat)
        release()

    task = fork(canary)
    begun.recv()
    try:
        return operation()
    finally:
        task.join()
        assert len(beats) == BEATS
