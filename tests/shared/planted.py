"""Bugs that gofer.testing.explore must find: each the program that has it, and the same without."""

from gofer import Chan, Cond, Group, Mutex, Once, WaitGroup, go
from gofer.errors import Closed, Deadlock


class LostWakeUp:
    """Between looking and lying down somebody rings."""

    error = Deadlock

    @staticmethod
    def wrong():
        ready, sleepers = [], []

        def sleeper():
            if not ready:
                bell = Chan(1)
                sleepers.append(bell)
                bell.recv()

        go(sleeper)
        ready.append(True)
        for bell in sleepers:
            bell.send(None)

    @staticmethod
    def right():
        ready, sleepers, guard = [], [], Mutex()

        def sleeper():
            bell = None
            with guard:
                if not ready:
                    bell = Chan(1)
                    sleepers.append(bell)
            if bell:
                bell.recv()

        go(sleeper)
        with guard:
            ready.append(True)
        for bell in sleepers:
            bell.send(None)


class DoubleClose:
    """Both see that it is open."""

    error = Closed

    @staticmethod
    def wrong():
        ch = Chan()

        def shut():
            if not ch.closed:
                ch.close()

        go(shut)
        go(shut)

    @staticmethod
    def right():
        ch, once = Chan(), Once()
        go(once.do, ch.close)
        go(once.do, ch.close)


class CheckThenAct:
    """Both find enough money."""

    error = AssertionError

    @staticmethod
    def wrong():
        account = {"money": 100}

        def withdraw(amount):
            if account["money"] >= amount:
                account["money"] -= amount

        with WaitGroup() as customers:
            customers.go(withdraw, 80)
            customers.go(withdraw, 80)
        assert account["money"] == 20

    @staticmethod
    def right():
        account, guard = {"money": 100}, Mutex()

        def withdraw(amount):
            with guard:
                if account["money"] >= amount:
                    account["money"] -= amount

        with WaitGroup() as customers:
            customers.go(withdraw, 80)
            customers.go(withdraw, 80)
        assert account["money"] == 20


class OppositeOrder:
    """Each holds what the other one wants."""

    error = Deadlock

    @staticmethod
    def wrong():
        a, b = Mutex(), Mutex()

        def move(source, target):
            with source:
                with target:
                    pass

        with Group() as g:
            g.go(move, a, b)
            g.go(move, b, a)

    @staticmethod
    def right():
        a, b = Mutex(), Mutex()

        def move(*accounts):
            first, second = sorted(accounts, key=[a, b].index)
            with first:
                with second:
                    pass

        with Group() as g:
            g.go(move, a, b)
            g.go(move, b, a)


class MissedSignal:
    """It is given before somebody waits for it."""

    error = Deadlock

    @staticmethod
    def wrong():
        mutex = Mutex()
        cond = Cond(mutex)

        def consumer():
            with mutex:
                cond.wait()

        go(consumer)
        with mutex:
            cond.signal()

    @staticmethod
    def right():
        mutex, ready = Mutex(), []
        cond = Cond(mutex)

        def consumer():
            with mutex:
                while not ready:
                    cond.wait()

        go(consumer)
        with mutex:
            ready.append(True)
            cond.signal()


BUGS = [LostWakeUp, DoubleClose, CheckThenAct, OppositeOrder, MissedSignal]
