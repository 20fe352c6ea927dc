"""Around bubbles."""

from gofer import current, go, gosched

HOUR = 3600


def release_from_outside(release):
    """To be called outside of the bubble: a goroutine there acts when the caller waits."""
    main = current()

    def act():
        while main.state != "waiting":
            gosched()
        release()

    return go(act)
