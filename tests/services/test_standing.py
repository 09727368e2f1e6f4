"""Which exposures of a series count, whatever was taken, rejected, waived or damaged, in whatever order."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from mistral_txm.devices.key import Key
from mistral_txm.services.standing import Contribution, planned_keys, standing

MANIFEST = planned_keys({"planned_keys": [[0, -10, 1, 3], [0, -10, -1, 3], [102, 5, 1, 2]]})
STRAY = Key(0.0, 33.0, 1, 0)


class One(NamedTuple):
    """An exposure; `number` tells those of one key apart."""

    key: Key
    polarization: int
    number: int


keys = st.sampled_from([*MANIFEST, STRAY])
actions = st.lists(
    st.one_of(
        st.tuples(st.just("take"), keys, st.sampled_from(["good", "damaged", "jaws elsewhere"])),
        st.tuples(st.just("waive"), keys, st.none()),
        st.tuples(st.just("reject"), st.lists(keys), st.none()),
        st.tuples(st.just("next run"), st.none(), st.none()),
    ),
    max_size=40,
)


class Clerk:
    """Does the bookkeeping step by step, as a person with a pencil would: the witness.

    Of each key there is a pile of good exposures, the newest on top; a rejection clears the piles of its keys, and
    with them goes what made others of that angle and helicity needless.
    """

    def __init__(self):
        self.runs = [([], [], [])]
        self.damaged = set()
        self.pile = {key: [] for key in MANIFEST}
        self.not_needed = set()

    def take(self, key, how):
        polarization = 0 if how == "jaws elsewhere" else key.helicity
        one = One(key, polarization, sum(len(run[0]) for run in self.runs))
        self.runs[-1][0].append(one)
        if how == "damaged":
            self.damaged.add(one)
        if how == "good" and key in self.pile:
            self.pile[key].append(one)

    def waive(self, key):
        self.runs[-1][1].append(key)
        self.not_needed |= {
            other for other in MANIFEST if other[:3] == key[:3] and other.repeat >= key.repeat
        }

    def reject(self, rejected):
        self.runs += [([], [], rejected), ([], [], [])]
        for key in rejected:
            if self.pile.get(key):
                self.pile[key].clear()
                self.not_needed = {other for other in self.not_needed if other[:3] != key[:3]}

    def next_run(self):
        self.runs.append(([], [], []))


@given(actions)
def test_what_is_done_and_waived_and_left_is_what_was_planned(done):
    clerk = Clerk()
    for what, of, how in done:
        match what:
            case "take":
                clerk.take(of, how)
            case "waive":
                clerk.waive(of)
            case "reject":
                clerk.reject(of)
            case "next run":
                clerk.next_run()
    found = standing(MANIFEST, [Contribution(*run) for run in clerk.runs], clerk.damaged)
    assert sorted([*found.accepted, *found.waived, *found.missing]) == sorted(MANIFEST)
    assert found.planned == len(MANIFEST) - len(found.waived)
    assert found.accepted == {key: pile[-1] for key, pile in clerk.pile.items() if pile}
    left = [key for key in MANIFEST if not clerk.pile[key]]
    assert found.waived == tuple(key for key in left if key in clerk.not_needed)
    assert found.missing == tuple(key for key in left if key not in clerk.not_needed)
    assert {*found.rejected, *found.unassigned} <= set(found.missing)
    numbers = [one.number for one in found.accepted.values()]
    assert numbers == sorted(numbers)


A, B = MANIFEST[:2]


def stand(*runs, unusable=()):
    return standing([A, B], [Contribution(*run) for run in runs], unusable)


def test_the_last_good_one_counts_where_a_later_one_is_damaged():
    first, second = One(A, 1, 0), One(A, 1, 1)
    assert stand(([first],), ([second],)).accepted == {A: second}
    assert stand(([first],), ([second],), unusable={second}).accepted == {A: first}
    assert stand(([first],), ([second],)).repeated == (A,)


def test_an_exposure_with_the_jaws_elsewhere_leaves_the_one_before():
    first, second = One(A, 1, 0), One(A, -1, 1)
    assert stand(([first, second],)).accepted == {A: first}
    assert stand(([second],)).unassigned == (A,)
    assert stand(([first, second],)).unassigned == ()


def test_a_rejection_takes_back_what_came_before_it_alone():
    first, again = One(A, 1, 0), One(A, 1, 1)
    rejection = ((), (), [A])
    assert stand(([first],), rejection).missing == (A, B)
    assert stand(([first],), rejection).rejected == (A,)
    assert stand(([first],), rejection, ([again],)).accepted == {A: again}
    assert stand(([first],), rejection, ([again],)).rejected == ()
    assert stand(rejection, ([first],)).accepted == {A: first}


def test_the_one_before_a_rejection_does_not_count_where_the_one_after_is_damaged():
    first, again = One(A, 1, 0), One(A, 1, 1)
    runs = ([first],), ((), (), [A]), ([again],)
    assert stand(*runs, unusable={again}).missing == (A, B)


def test_a_waived_key_that_was_taken_all_the_same_counts():
    both = One(A, 1, 0), One(B, 1, 1)
    assert stand((both[:1], [B])).waived == (B,)
    assert stand((both, [B])).waived == ()
    assert stand((both, [B])).planned == 2
