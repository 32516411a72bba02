"""When to try again: delays, budgets, hosts. Pure, with times that the tests make up."""

from __future__ import annotations

import pytest

from dscache.sources.exchange import Failure, Trouble
from dscache.sources.retry import Budget, Policy, delay
from dscache.transfer.hosts import Host

POLICY = Policy(retries=5, max_retry_wait=60)
BROKEN = Failure(Trouble.CONNECTION, "broken")


@pytest.mark.parametrize(
    "trouble", [each for each in Trouble if each.value not in ("connection", "busy")]
)
def test_what_will_not_change_is_not_asked_again(trouble: Trouble) -> None:
    assert delay(Failure(trouble, "reason"), 1, POLICY) is None


@pytest.mark.parametrize("trouble", [Trouble.CONNECTION, Trouble.BUSY])
def test_what_may_change_is(trouble: Trouble) -> None:
    assert delay(Failure(trouble, "reason"), 1, POLICY) is not None


def test_delays_grow_and_scatter() -> None:
    means = [sum(_delays(attempt)) / 200 for attempt in range(1, 6)]
    assert means == sorted(means)
    assert means[4] > 8 * means[0]
    assert len(set(_delays(1))) > 100


def _delays(attempt: int) -> list[float]:
    found = [delay(BROKEN, attempt, POLICY) for _ in range(200)]
    return [each for each in found if each is not None]


def test_there_is_no_delay_of_nothing_and_none_without_end() -> None:
    patient = Policy(retries=1000)
    for attempt in range(1, 1001):
        found = delay(BROKEN, attempt, patient)
        assert found is not None
        assert 0.05 < found < 60


def test_retries_end() -> None:
    assert delay(BROKEN, 5, POLICY) is not None
    assert delay(BROKEN, 6, POLICY) is None
    assert delay(BROKEN, 1, Policy(retries=0)) is None


@pytest.mark.parametrize("asked", [1, 30, 60])
def test_what_a_server_asks_for_is_the_least(asked: float) -> None:
    for _ in range(50):
        found = delay(Failure(Trouble.BUSY, "", 503, asked), 1, POLICY)
        assert found is not None
        assert found >= asked


def test_a_wait_that_is_too_long_is_none() -> None:
    assert delay(Failure(Trouble.BUSY, "", 503, 60.5), 1, POLICY) is None


def test_a_retry_after_of_nothing_is_no_tight_loop() -> None:
    found = delay(Failure(Trouble.BUSY, "", 503, 0.0), 1, POLICY)
    assert found is not None
    assert found > 0.05


def test_a_budget_ends_and_success_refills_it() -> None:
    budget = Budget(Policy(retries=2))
    spent = 0
    while budget.spend():
        spent += 1
    assert spent == 40
    for _ in range(1000):
        assert not budget.spend()
    budget.refill()
    assert budget.spend()
    assert not budget.spend()


def test_a_budget_never_grows() -> None:
    budget = Budget(Policy(retries=1))
    for _ in range(1000):
        budget.refill()
    assert sum(budget.spend() for _ in range(1000)) == 20


def test_no_retries_means_none() -> None:
    assert not Budget(Policy(retries=0)).spend()


def test_a_busy_host_gets_half() -> None:
    host = Host(16)
    host.active = 8
    host.is_busy(now=100.0, rest=5.0)
    assert host.is_full
    assert host.resting_until == 105.0
    host.active = 7
    assert host.is_full is False


def test_refusals_that_come_together_count_once() -> None:
    host = Host(16)
    for moment in range(10):
        host.is_busy(now=100.0 + moment / 100, rest=1.0)
    assert host.allowed == 8


def test_a_host_that_stays_busy_keeps_one_connection() -> None:
    host = Host(16)
    for moment in range(10):
        host.is_busy(now=100.0 + 10 * moment, rest=1.0)
    assert host.allowed == 1
    host.active = 0
    assert not host.is_full


def test_a_shorter_rest_does_not_end_a_longer_one() -> None:
    host = Host(4)
    host.is_busy(now=100.0, rest=50.0)
    host.is_busy(now=101.0, rest=1.0)
    assert host.resting_until == 150.0


def test_a_host_that_is_well_again_grows_slowly_to_what_it_had() -> None:
    host = Host(16)
    host.is_busy(now=100.0, rest=1.0)
    host.is_well()
    assert 8 < host.allowed < 9
    for _ in range(1000):
        host.is_well()
    assert host.allowed == 16
