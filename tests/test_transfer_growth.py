"""How many connections pay: simulated against models of servers, with a clock that costs no time.

The client of the simulation asks for pieces as the pool does: a connection that has ended its piece
is not at work until the next one is answered. What is best is found by the same simulation with a
number of connections that stays the same.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache.transfer.growth import Growth
from dscache.transfer.hosts import Host

MIB = 1 << 20
_TICK = 0.01
_MOST = 16
#: Seconds of a transfer, those at its start that do not count, and what is good enough.
_LENGTH, _START, _GOOD = 20.0, 2.0, 0.9


@dataclass(eq=False)
class Connection:
    """One connection: kept open between its requests.

    Attributes:
        left: bytes of the request under way; infinite for all of the file.
        asked: when that was sent.
        room: bytes that the server still allows it in this `second`, where it counts them.
        window: what may be under way at once, which grows with use.
    """

    left: float = 0.0
    asked: float = 0.0
    is_answered: bool = False
    second: int = -1
    room: float = 0.0
    window: float = 14_600.0


#: How many bytes each of the connections at work may get in the tick that begins at a time.
Server = Callable[[Sequence[Connection], float], list[float]]


@dataclass(eq=False)
class Client:
    """A long download that asks one host; `latency` is a round trip in seconds."""

    server: Server
    latency: float = 0.0
    growth: Growth | None = None
    now: float = 0.0
    received: list[tuple[float, float]] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.host = Host(_MOST)
        if self.growth:
            self.host.growth = self.growth
        self.busy: list[Connection] = []
        self.idle: list[Connection] = []

    def run(self, seconds: float = _LENGTH) -> None:
        while self.now < seconds:
            self._ask()
            self._answer()
            self._receive()
            self.now += _TICK
            self.host.growth.look(self.now, sum(each.is_answered for each in self.busy))
            self.wanted.append(self.host.growth.wanted)

    def rate(self, since: float = _START, until: float = _LENGTH) -> float:
        """Bytes per second between two times."""
        return sum(count for at, count in self.received if since <= at < until) / (until - since)

    def _ask(self) -> None:
        wanted = self.host.growth.wanted
        if wanted > 1:  # nobody goes on beyond where the next piece begins
            for each in self.busy:
                each.left = min(each.left, self.host.share(1 << 40))
        while len(self.busy) < wanted:
            each = self.idle.pop() if self.idle else Connection()
            each.left = float(self.host.share(1 << 40)) if wanted > 1 else math.inf
            each.asked, each.is_answered = self.now, False
            self.busy.append(each)

    def _answer(self) -> None:
        for each in self.busy:
            if not each.is_answered and self.now >= each.asked + self.latency:
                each.is_answered = True
                self.host.growth.answered(self.now - each.asked)

    def _receive(self) -> None:
        at_work = [each for each in self.busy if each.is_answered]
        for each, most in zip(at_work, self.server(at_work, self.now), strict=True):
            count = min(most, each.left)
            if self.latency:
                count = min(count, each.window * _TICK / self.latency)
                each.window = min(4 * MIB, each.window + count)
            each.left -= count
            each.room -= count
            self.host.growth.receive(int(count))
            self.received.append((self.now, count))
            if each.left < 1:
                self.busy.remove(each)
                self.idle.append(each)


class Fixed(Growth):
    """As many connections all the time."""

    def __init__(self, number: int) -> None:
        super().__init__(_MOST, wanted=number)
        self._total = 0
        self._seen = 0.0

    @property
    def pace(self) -> float:
        return self._total / self._seen / self.wanted if self._seen else 0.0

    def receive(self, count: int) -> None:
        self._total += count

    def look(self, now: float, active: int) -> None:
        self._seen = now


# --- Models of servers ----------------------------------------------------------------------------


def each_has(rate: float, line: float = math.inf) -> Server:
    """So much for each connection, and so much for all."""
    return lambda at_work, _: [min(rate, line / len(at_work)) * _TICK for _ in at_work]


def all_have(rate: float, cost: float = 0.0) -> Server:
    """So much for all, of which each further connection takes a part away."""

    def serve(at_work: Sequence[Connection], _: float) -> list[float]:
        count = len(at_work)
        return [rate * (1 - cost * (count - 1)) / count * _TICK for _ in at_work]

    return serve


def in_bursts(rate: float, line: float) -> Server:
    """What a connection may get in a second comes at once, as each second begins."""

    def serve(at_work: Sequence[Connection], now: float) -> list[float]:
        for each in at_work:
            if each.second != int(now):
                each.second, each.room = int(now), rate
        return [min(each.room, line / len(at_work) * _TICK) for each in at_work]

    return serve


def noisy(server: Server, spread: float) -> Server:
    """The same on a busy network: what comes varies from one tenth of a second to the next."""

    def serve(at_work: Sequence[Connection], now: float) -> list[float]:
        factor = 1 + spread * (random.Random(int(now * 10)).random() * 2 - 1)
        return [each * factor for each in server(at_work, now)]

    return serve


def changing(before: Server, after: Server) -> Server:
    """Another one from the middle on."""
    return lambda at_work, now: (before if now < _LENGTH / 2 else after)(at_work, now)


MODELS: dict[str, tuple[Server, float]] = {
    "each connection is throttled": (each_has(2 * MIB, 100 * MIB), 0.0),
    "each is throttled, four fill the line": (each_has(10 * MIB, 40 * MIB), 0.0),
    "each is throttled, and it is far": (each_has(2 * MIB, 100 * MIB), 0.05),
    "the client is throttled": (all_have(5 * MIB), 0.0),
    "the client is throttled, and it is far": (all_have(5 * MIB), 0.05),
    "one is enough": (all_have(1000 * MIB), 0.0),
    "one is enough, and more cost": (all_have(1000 * MIB, 0.01), 0.0),
    "one is enough, and more cost much": (all_have(100 * MIB, 0.05), 0.0),
    "slow start": (all_have(200 * MIB), 0.05),
    "slow start and a long way": (all_have(200 * MIB), 0.1),
    "bursts": (in_bursts(2 * MIB, 200 * MIB), 0.0),
    "slow bursts": (in_bursts(MIB / 4, 200 * MIB), 0.0),
    "bursts from afar": (in_bursts(2 * MIB, 200 * MIB), 0.05),
    "noise where each is throttled": (noisy(each_has(2 * MIB, 100 * MIB), 0.2), 0.02),
    "noise where one is enough": (noisy(all_have(100 * MIB, 0.01), 0.2), 0.02),
}


CHANGES: dict[str, tuple[Server, Server]] = {
    "a throttle begins": (all_have(40 * MIB), each_has(2 * MIB)),
    "a throttle ends": (each_has(2 * MIB), all_have(40 * MIB, 0.01)),
    "the line becomes thin": (each_has(2 * MIB), all_have(4 * MIB)),
    "the line becomes thick": (all_have(4 * MIB), all_have(100 * MIB)),
}


def measured(server: Server, latency: float, growth: Growth | None = None) -> Client:
    client = Client(server, latency, growth)
    client.run()
    return client


def best_fixed(server: Server, latency: float, since: float = _START) -> float:
    """The rate of that fixed number of connections which is best."""
    return max(measured(server, latency, Fixed(n)).rate(since) for n in (1, 2, 4, 8, 16))


@pytest.mark.parametrize("name", MODELS)
def test_after_two_seconds_it_is_nearly_as_good_as_the_best_number(name: str) -> None:
    server, latency = MODELS[name]
    client = measured(server, latency)
    assert client.rate() >= _GOOD * best_fixed(server, latency)
    assert all(1 <= wanted <= _MOST for wanted in client.wanted)


@pytest.mark.parametrize("name", CHANGES)
def test_where_the_network_changes_it_finds_the_best_number_anew(name: str) -> None:
    """Within half of what is left; a fixed number never has to look for it."""
    server, since = changing(*CHANGES[name]), _LENGTH * 3 / 4
    assert measured(server, 0.02).rate(since) >= _GOOD * best_fixed(server, 0.02, since)


@pytest.mark.parametrize("latency", [0.0, 0.05])
def test_a_number_is_changed_seldom(latency: float) -> None:
    """Trying costs something: it is done less and less often where nothing comes of it."""
    for server in (all_have(10 * MIB), each_has(2 * MIB), in_bursts(2 * MIB, 100 * MIB)):
        wanted = measured(server, latency).wanted
        changes = [at for at in range(1, len(wanted)) if wanted[at] != wanted[at - 1]]
        assert len(changes) <= 12
        assert sum(at * _TICK > _LENGTH / 2 for at in changes) <= 5


def test_where_more_cost_something_one_is_used_most_of_the_time() -> None:
    wanted = measured(all_have(100 * MIB, 0.05), 0.0).wanted
    assert wanted.count(1) > len(wanted) / 2


def test_a_throttled_server_gets_all_within_a_second() -> None:
    """The climb takes three looks, each of some round trips."""
    assert measured(each_has(2 * MIB), 0.02).wanted[int(1 / _TICK)] == _MOST


# --- Rules ----------------------------------------------------------------------------------------


def test_one_connection_is_wanted_until_something_is_known() -> None:
    growth = Growth(_MOST)
    assert (growth.wanted, growth.pace) == (1, 0.0)
    growth.look(0.0, 0)
    growth.look(5.0, 0)
    assert growth.wanted == 1


@given(st.integers(1, 64), st.integers(1, 10))
def test_shrinking_halves_and_leaves_one(wanted: int, times: int) -> None:
    growth = Growth(64, wanted=wanted)
    for _ in range(times):
        before = growth.wanted
        growth.shrink(0.0)
        assert growth.wanted == max(1, before // 2)


def test_after_shrinking_more_are_not_tried_at_once() -> None:
    growth = Growth(_MOST)
    client = Client(each_has(2 * MIB), 0.0, growth)
    client.run(1.0)
    assert growth.wanted == _MOST
    growth.shrink(client.now)
    client.run(1.5)
    assert growth.wanted == _MOST // 2


def test_where_one_connection_is_as_fast_as_this_machine_no_other_is_tried() -> None:
    client = Client(all_have(600e6), 0.0, Growth(_MOST))
    client.run()
    assert set(client.wanted) == {1}


def test_a_burst_at_the_start_is_not_taken_for_what_the_server_gives() -> None:
    client = Client(changing(all_have(600e6), each_has(20 * MIB)), 0.0, Growth(_MOST))
    client.run()
    assert client.wanted.count(_MOST) > len(client.wanted) / 3


def test_what_brings_nothing_is_given_up_soon() -> None:
    growth = Growth(_MOST)
    client = Client(all_have(60e6, cost=0.02), 0.0, growth)
    client.run(1.0)
    assert set(client.wanted) == {1, 4}
    assert growth.wanted == 1


@given(
    st.integers(1, _MOST),
    st.lists(
        st.tuples(
            st.floats(0, 3),
            st.integers(0, 20),
            st.integers(0, 1 << 30),
            st.floats(0, 1) | st.none(),
        ),
        max_size=60,
    ),
)
def test_whatever_comes_the_number_stays_within_its_limits(
    most: int, looks: list[tuple[float, int, int, float | None]]
) -> None:
    """Whatever the clock, the bytes and the connections do, zero included."""
    growth, now = Growth(most), 0.0
    for seconds, active, count, latency in looks:
        now += seconds
        growth.receive(count)
        if latency is None:
            growth.shrink(now)
        else:
            growth.answered(latency)
        growth.look(now, active)
        assert 1 <= growth.wanted <= most
        assert growth.pace >= 0
