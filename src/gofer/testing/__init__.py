"""For tests of programs that use goroutines: time under control, schedules under control.

`bubble` is a with block in which an hour of timers and time-outs takes a moment; `wait` waits there
until everything else has come to rest.
"""

from gofer.testing._bubble import bubble, wait

__all__ = ["bubble", "wait"]
