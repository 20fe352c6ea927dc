"""The first goroutine: a function that runs beside the others.

`go(speak, "hello")` starts it and returns at once. Sleeping until it should be done is a guess; a
`WaitGroup` counts the goroutines that are under way and waits for exactly those.
"""

from gofer import WaitGroup, go, sleep


def speak(word: str) -> None:
    for n in range(3):
        print(f"{word} {n}")
        sleep(0.01)


def main() -> None:
    go(speak, "hello")
    sleep(0.1)  # long enough, we hope

    speakers = WaitGroup()
    for word in ("apple", "pear", "plum"):
        speakers.go(speak, word)
    speakers.wait()
    print("all have spoken")


if __name__ == "__main__":
    main()
