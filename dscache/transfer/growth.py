"""How many connections at once pay at one host: as many as make the total grow.

Climbs: tries four times as many connections and keeps them as soon as more bytes come in all; if
none do, it goes back, and the next time tries half as many, which are kept if nothing is lost. Pure
arithmetic on times and bytes that the caller gives.
"""

from __future__ import annotations

_UP, _DOWN = 4, 2
#: More connections must bring this much more, fewer may bring this much less.
_GAIN, _LOSS = 1.1, 0.97
#: What is clear at once, before a rate is sure: that more connections pay, and that fewer do not.
_MUCH_MORE, _MUCH_LESS = 1.5, 0.6
#: Bytes per second from one connection at which this machine, which hashes a GiB a second, is the
#: limit, and not the server.
_PLENTY = 400e6
#: Seconds over which a rate is measured: enough to see a clear difference, to see that more
#: connections bring nothing at all, and to be sure.
#: Servers that limit rates do so in bursts of a second: over two, half a rate is never taken for
#: the whole, whatever of the bursts falls into them.
_SHORT, _MIDDLE, _LONG = 0.05, 0.25, 2.0
#: Round trips until a new connection runs at its full speed (TCP's slow start).
_ROUND_TRIPS = 8
#: Time until the next attempt, as a multiple of what one takes; doubled each time that nothing
#: came of it.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 16.0


class Growth:
    """The number of connections that are wanted; `most` is the limit."""

    def __init__(self, most: int, wanted: int = 1) -> None:
        self.most = most
        self.wanted = wanted
        self.latency = 0.0
        self._rate = 0.0  # what `wanted` connections give
        self._before: tuple[int, float] | None = None  # while something is tried: what there was
        self._is_upward = True
        self._pause = _FIRST_PAUSE
        self._next_try = 0.0
        self._since: float | None = None
        self._count = 0

    @property
    def pace(self) -> float:
        """Bytes per second of one connection when that was last looked at; 0 if never."""
        wanted, rate = self._before or (self.wanted, self._rate)
        return rate / wanted

    @property
    def _enough(self) -> float:
        """Seconds after which a rate is sure."""
        return max(_LONG, 2 * _ROUND_TRIPS * self.latency)

    @property
    def _has_plenty(self) -> bool:
        return self._rate > _PLENTY * self.wanted

    def answered(self, seconds: float) -> None:
        """A request was answered after so many seconds."""
        self.latency = min(self.latency or seconds, seconds)

    def receive(self, count: int) -> None:
        """So many bytes have come, over all connections."""
        self._count += count

    def look(self, now: float, active: int) -> None:
        """Decide anew if there is something to decide by; `active` connections are at work."""
        if self._since is None:
            if active >= self.wanted if self._is_upward else active <= self.wanted:
                self._since, self._count = now, 0
            return
        seconds = now - self._since
        if seconds < max(_SHORT, _ROUND_TRIPS * self.latency):
            return
        rate, wanted = self._count / seconds, self.wanted
        is_sure = seconds >= self._enough
        is_due = not self._rate or is_sure or (self._has_plenty and seconds >= _MIDDLE)
        if self._before is not None:
            self._judge(rate, now, is_sure, *self._before)
        elif is_due:
            self._consider(rate, now)
        if self.wanted != wanted:
            self._since = None
        elif is_sure or (is_due and self._before is None):
            self._since, self._count = now, 0

    def shrink(self, now: float) -> None:
        """A connection was refused or broken: fewer may be better."""
        self.wanted = max(1, self.wanted // _DOWN)
        self._before, self._since = None, None
        self._rest(now)

    def _consider(self, rate: float, now: float) -> None:
        """See whether this is the time to try something else."""
        has_fallen = rate < _MUCH_LESS * self._rate
        self._is_upward |= has_fallen
        if has_fallen and self._has_plenty:
            self._rate = 0.0  # some of what was measured was still plenty: look again at once
        elif not has_fallen and (now < self._next_try or rate > _PLENTY * self.wanted):
            self._rate = max(rate, self._rate)
        else:
            self._try(rate)

    def _try(self, rate: float) -> None:
        """Ask for other connections than those that give `rate`."""
        self._rate = rate
        if self._next() == self.wanted:
            self._is_upward = not self._is_upward
        tried = self._next()
        if tried != self.wanted:
            self._before = self.wanted, rate
            self.wanted = tried

    def _next(self) -> int:
        if self._is_upward:
            return min(self.most, self.wanted * _UP)
        return max(1, self.wanted // _DOWN)

    def _judge(self, rate: float, now: float, is_sure: bool, wanted: int, before: float) -> None:
        """See what came of trying: more pays at once, less may only after a while."""
        pays = rate > before * (_GAIN if self._is_upward else _LOSS)
        if pays if is_sure else self._is_upward and rate > before * _MUCH_MORE:
            self._before, self._rate, self._pause = None, rate, _FIRST_PAUSE
            if self._next() != self.wanted:
                self._try(rate)
            else:
                self._next_try = now + self._pause * self._enough
        elif is_sure or self._is_idle(rate, before, now):
            self._before, self._rate, self.wanted = None, before, wanted
            self._is_upward = not self._is_upward
            self._rest(now)

    def _is_idle(self, rate: float, before: float, now: float) -> bool:
        """True if it is plain soon that what is tried does not pay."""
        if not self._is_upward:
            return rate < before * _MUCH_LESS
        middle = max(_MIDDLE, 2 * _ROUND_TRIPS * self.latency)
        return rate < before and self._since is not None and now - self._since >= middle

    def _rest(self, now: float) -> None:
        self._next_try = now + self._pause * self._enough
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
