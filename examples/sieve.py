"""The concurrent prime sieve: a chain of goroutines, one for each prime found.

`generate` sends 2, 3, 4, ... into the first channel. The first number that arrives at the end of
the chain is prime; a new goroutine there lets through only what this prime does not divide.

    generate -> sift 2 -> sift 3 -> sift 5 -> ...

    python examples/sieve.py 100
"""

import sys
from itertools import count

from gofer import Chan, RecvChan, SendChan, go


def generate(out: SendChan[int]) -> None:
    for number in count(2):
        out.send(number)


def sift(numbers: RecvChan[int], out: SendChan[int], prime: int) -> None:
    for number in numbers:
        if number % prime:
            out.send(number)


def primes(n: int) -> list[int]:
    found: list[int] = []
    last = Chan[int]()
    go(generate, last.sender)
    for _ in range(n):
        prime = last.recv()
        found.append(prime)
        following = Chan[int]()
        go(sift, last.receiver, following.sender, prime)
        last = following
    return found  # the chain waits for ever now; it goes away with the program


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    print(*primes(n))


if __name__ == "__main__":
    main()
