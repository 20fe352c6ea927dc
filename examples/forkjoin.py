"""Fork and join: a task's value, or its exception, is handed to whoever joins it.

`total` splits its work in two until a part is small, gives one half to a `fork` and does the other
itself. An exception travels the same way as a value: from `join` to `join`, up to the first call.
"""

from collections.abc import Sequence

from gofer import fork

SMALL = 1000


def total(words: Sequence[str]) -> int:
    if len(words) <= SMALL:
        return sum(map(int, words))
    middle = len(words) // 2
    left = fork(total, words[:middle])
    right = total(words[middle:])
    return left.join() + right


def main() -> None:
    words = [str(n) for n in range(1, 100_001)]
    print("the sum is", total(words))

    words[12_345] = "a dozen"
    try:
        total(words)
    except ValueError as error:
        print("no sum:", error)


if __name__ == "__main__":
    main()
