"""What may park in the middle: functions that call `park`, directly or from far below.

What each returns depends on what `park` returns, and not on how long it takes.
"""


class All:
    """Every special method parks."""

    def __init__(self, park, n=0):
        self.park, self.n = park, n
        park()

    def __repr__(self):
        return f"All {self.park()}"

    def __format__(self, spec):
        return f"{self.park()}{spec}"

    def __bytes__(self):
        return bytes([self.park()])

    def __len__(self):
        return self.park()

    def __bool__(self):
        return self.park() == 0

    def __hash__(self):
        return self.park()

    def __eq__(self, other):
        return self.park() == 7 and self.n == getattr(other, "n", None)

    def __lt__(self, other):
        self.park()
        return self.n < other.n

    def __iter__(self):
        self.park()
        return iter([self.park(), 1])

    def __contains__(self, item):
        return item == self.park()

    def __getitem__(self, key):
        return key, self.park()

    def __setitem__(self, key, value):
        self.n += self.park()

    def __delitem__(self, key):
        self.n -= self.park()

    def __call__(self, *args, **kwargs):
        return args, kwargs, self.park()

    def __enter__(self):
        return self.park()

    def __exit__(self, kind, error, trace):
        self.park()
        return kind is KeyError

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name, self.park()

    def __add__(self, other):
        return self.park() + other

    def __radd__(self, other):
        return self.park() + other

    def __iadd__(self, other):
        self.n += self.park()
        return self

    def __neg__(self):
        return -self.park()

    def __matmul__(self, other):
        return self.park() * other

    def __index__(self):
        return self.park()

    def __float__(self):
        return float(self.park())

    def __dir__(self):
        return [str(self.park())]

    def __reduce__(self):
        return int, (self.park(),)

    def __deepcopy__(self, memo):
        return self.park()

    def __sizeof__(self):
        return self.park()

    def __round__(self, digits=None):
        return self.park()

    def __divmod__(self, other):
        return self.park(), other

    def __getstate__(self):
        return self.park()


class Steps:
    def __init__(self, park, n=3):
        self.park, self.n = park, n

    def __iter__(self):
        return self

    def __next__(self):
        self.park()
        self.n -= 1
        if self.n < 0:
            raise StopIteration
        return self.n
