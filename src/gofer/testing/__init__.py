"""For tests of programs that use goroutines: time under control, schedules under control.

`bubble` is a with block in which an hour of timers and time-outs takes a moment; `wait` waits there
until everything else has come to rest. `explore` runs a test under many schedules; the one that
fails can be had again.
"""

from gofer.testing._bubble import bubble, wait
from gofer.testing._explore import Exploration, Livelock, Strategy, explore

__all__ = ["Exploration", "Livelock", "Strategy", "bubble", "explore", "wait"]
