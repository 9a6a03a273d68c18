"""Lists of any cost in any order on simulated cores, beside single items handed out in order."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hypothesis import example, given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.costs import SLACK, Cutting
from jetmap.dispatch.open_map import OpenMap
from simulation import Simulation, greedy

SHAPES = (
    "equal", "uniform", "pareto", "pareto, one long early", "one long early", "one long late",
    "up", "down", "bimodal", "rare", "dearer", "dearer and uneven", "cheaper", "zero",
)  # fmt: skip
WILD = ("phases", "spikes", "dear at the end")
CUTTING = Cutting()
GREEDY = 1.1


def costs_of(shape: str, items: int, each: float, random: Random) -> list[float]:
    """Seconds of each item of a list, about ``each`` in the mean."""
    pareto = lambda count: [0.3 * each * random.paretovariate(1.2) for _ in range(count)]  # noqa: E731
    turn = random.randrange(items)
    long = each * items / 10
    match shape:
        case "equal":
            return [each] * items
        case "uniform":
            return [2 * each * random.random() for _ in range(items)]
        case "pareto":
            return pareto(items)
        case "pareto, one long early":
            costs = pareto(items)
            costs[items // 20] = long
            return costs
        case "one long early":
            costs = [each] * items
            costs[min(items - 1, random.randrange(5))] = long
            return costs
        case "one long late":
            return [each] * (items - 1) + [long]
        case "up":
            return [2 * each * n / items for n in range(items)]
        case "down":
            return [2 * each * (items - n) / items for n in range(items)]
        case "bimodal":
            return [10 * each if random.random() < 0.1 else each / 10 for _ in range(items)]
        case "rare":
            return [200 * each if random.random() < 0.005 else each / 10 for _ in range(items)]
        case "dearer":
            return [1e-6] * turn + [each] * (items - turn)
        case "dearer and uneven":
            return [1e-6] * turn + pareto(items - turn)
        case "cheaper":
            return [each] * turn + [1e-6] * (items - turn)
        case "phases":
            costs = []
            while len(costs) < items:
                level = 10 ** random.uniform(-6, 0)
                costs += [level * random.uniform(0.5, 1.5) for _ in range(random.randrange(1, 300))]
            return costs[:items]
        case "spikes":
            share, level = 10 ** random.uniform(-3, -0.5), 10 ** random.uniform(-6, -2)
            spikes = lambda: 10 ** random.uniform(-6, 0.5)  # noqa: E731
            return [spikes() if random.random() < share else level for _ in range(items)]
        case "dear at the end":
            dear = min(items, random.randrange(1, 200))
            ends = [10 ** random.uniform(-1, 1) for _ in range(dear)]
            return [1e-5] * (items - dear) + ends
        case _:
            return [0.0] * items


@dataclass(frozen=True)
class Case:
    """guess: what an item is thought to take, as a factor of the truth; None: nothing is known."""

    shape: str
    items: int
    each: float
    cores: int
    guess: float | None
    is_endless: bool = False
    seed: int = 0
    whole: bool = False

    def costs(self) -> list[float]:
        return costs_of(self.shape, self.items, self.each, Random(self.seed))

    def simulated(self) -> tuple[Simulation, OpenMap, list[float]]:
        costs = self.costs()
        simulation = Simulation(self.cores, cutting=CUTTING)
        if self.guess is not None:
            thought = max(1e-7, self.guess * sum(costs) / len(costs))
            items = max(1, round(CUTTING.seconds / thought))
            for _ in range(20):
                simulation.scheduler.cost("f").learn(items, items * thought, items)
        map = simulation.open(costs, is_endless=self.is_endless, whole=self.whole)
        simulation.run()
        assert map.is_complete and sorted(simulation.computed[map.id]) == list(range(self.items))
        return simulation, map, costs


GUESSES = (None, 1.0, 1e-6, 0.01, 1000.0)


def cases(
    *shapes: str, whole: bool = False, guesses: tuple[float | None, ...] = GUESSES
) -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        shape=st.sampled_from(shapes),
        items=st.one_of(st.integers(1, 300), st.integers(300, 3000)),
        each=st.floats(-5, 0).map(lambda power: 10**power),
        cores=st.sampled_from([2, 3, 4, 8, 16, 32, 64]) | st.integers(2, 64),
        guess=st.sampled_from(guesses),
        is_endless=st.just(False) if whole else st.sampled_from([False, False, False, True]),
        seed=st.integers(0, 2**32),
        whole=st.just(whole),
    )


@examples(150)
@given(cases(*SHAPES))
@example(Case("equal", 64, 0.016, 2, 1e-4))
@example(Case("equal", 64, 0.25, 16, 1e-6))
@example(Case("pareto, one long early", 200, 0.02, 2, None))
@example(Case("pareto, one long early", 200, 0.02, 16, 1e-6))
@example(Case("down", 7, 0.33, 2, 0.01))
@example(Case("dearer", 2000, 0.1, 16, None))
def test_a_map_takes_little_longer_than_single_items_in_order(case: Case) -> None:
    simulation, _, costs = case.simulated()
    best = greedy(costs, case.cores)
    assert simulation.now <= GREEDY * best + SLACK * CUTTING.seconds


@examples(60)
@given(cases(*WILD))
def test_no_core_idles_for_long_while_items_wait(case: Case) -> None:
    """No guess holds for lists that change all the time: any order of single items may take
    the work's share of a core and, at the end, the longest item."""
    simulation, _, costs = case.simulated()
    share = sum(costs) / case.cores
    assert simulation.now <= GREEDY * share + max(costs) + SLACK * CUTTING.seconds


@examples(100)
@given(cases(*SHAPES, *WILD, whole=True))
def test_the_last_items_sent_early_delay_no_map(case: Case) -> None:
    simulation, _, costs = case.simulated()
    share = sum(costs) / case.cores
    assert simulation.now <= GREEDY * share + max(costs) + SLACK * CUTTING.seconds


@examples(100)
@given(cases("one long late", whole=True, guesses=(None, 1.0, 1000.0)))
@example(Case("one long late", 200, 0.006, 2, None, whole=True))
def test_a_long_item_at_the_end_of_a_list_begins_early(case: Case) -> None:
    """If a list is thought to take next to nothing, its first chunk may be all of it."""
    simulation, _, costs = case.simulated()
    best = greedy([costs[-1], *costs[:-1]], case.cores)
    assert simulation.now <= GREEDY * best + SLACK * CUTTING.seconds
