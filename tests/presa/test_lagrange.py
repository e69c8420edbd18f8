import pytest

from presa import lagrange
from presa.lagrange import Multiplier, PIDMultiplier


def test_it_rises_by_the_rate_while_the_constraint_is_violated():
    multiplier = Multiplier(1.0, 0.02, 5.0, 0.0)
    multiplier.update(0.5)
    assert multiplier.value == pytest.approx(1.01)


def test_it_falls_when_the_constraint_is_met_and_never_below_zero():
    multiplier = Multiplier(0.01, 1.0, 5.0, 0.0)
    multiplier.update(-0.5)
    assert multiplier.value == 0


def test_it_counts_how_long_it_rests_at_its_cap():
    multiplier = Multiplier(4.9, 1.0, 5.0, 0.0)
    for _ in range(3):
        multiplier.update(0.2)
    assert (multiplier.value, multiplier.n_updates_at_cap) == (5.0, 3)


def test_it_warns_once_where_it_rests_at_its_cap(recwarn, monkeypatch):
    monkeypatch.setattr(lagrange, "UPDATES_AT_CAP", 3)
    multiplier = Multiplier(5.0, 1.0, 5.0, 0.0)
    for n_warnings in (0, 0, 1, 1):
        multiplier.update(0.2)
        multiplier.warn_at_cap()
        assert len(recwarn) == n_warnings
    assert str(recwarn[0].message).startswith("the constraint is not met and its multiplier rests at the cap 5.0; ")


def test_it_follows_the_moving_average_of_the_violation():
    multiplier = Multiplier(0.0, 1.0, 5.0, 0.5)
    multiplier.update(1.0)  # average 0.5
    multiplier.update(0.0)  # average 0.25
    assert multiplier.value == pytest.approx(0.75)


def test_its_state_goes_on_where_it_was():
    one, other = Multiplier(1.0, 0.1, 5.0, 0.9), Multiplier(1.0, 0.1, 5.0, 0.9)
    one.update(0.3)
    other.load_state(one.state())
    one.update(0.1)
    other.update(0.1)
    assert one.state() == other.state()


def test_a_controlled_multiplier_worked_by_hand():
    control = PIDMultiplier(0.1, 0.01, 1.0)
    # 0.1 * 2 + 0.01 * 2 + 1 * 2 = 2.22; then 0.1 * 1 + 0.01 * 3 + 0 = 0.13; then 0 + 0.01 * 0 + 0 = 0
    assert [control.update(violation) for violation in (2.0, 1.0, -5.0)] == pytest.approx([2.22, 0.13, 0.0])


def test_a_controller_goes_on_where_it_was():
    one, other = PIDMultiplier(0.1, 0.01, 1.0), PIDMultiplier(0.1, 0.01, 1.0)
    one.update(2.0)
    other.load_state(one.state())
    assert one.update(3.0) == other.update(3.0)
