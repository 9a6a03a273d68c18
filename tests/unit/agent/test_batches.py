"""The chunks that share a batch, and how a batch goes on that costs its workers."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hypotheses import examples
from jetmap.agent.batches import ChunkBatch, Gathering, halved

SIZE = 8


@dataclass(eq=False)
class Chunk:
    """A chunk of items. done: those that have been reported."""

    count: int
    bad: set[int] = field(default_factory=set)
    done: int = 0
    unwanted: bool = False

    @property
    def left(self) -> int:
        return self.count - self.done


class Cluster:
    """A worker that dies of every bad item, and of values that it cannot encode."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self.deaths = 0
        self.calls: list[int] = []
        self.blamed: list[tuple[Chunk, int | None]] = []

    def run(self, batch: ChunkBatch[Chunk]) -> None:
        """Compute a batch, and what is left of it whenever a worker dies."""
        waiting = [batch]
        while waiting:
            waiting = self._compute(waiting.pop(0)) + waiting

    def _compute(self, batch: ChunkBatch[Chunk]) -> list[ChunkBatch[Chunk]]:
        assert sum(batch.runs) == batch.items, "every item that is left is in a run"
        calls = [min(self.size, run - at) for run in batch.runs for at in range(0, run, self.size)]
        chunks = batch.chunks
        for call in calls:
            chunks = [chunk for chunk in chunks if chunk.left]
            items = [(c, c.done + i) for c in chunks for i in range(c.left)][:call]
            self.calls.append(call)
            if any(index in chunk.bad for chunk, index in items):
                self.deaths += 1
                batch.chunks = chunks
                begun, index = items[0]
                found = halved(batch, begun, index - begun.done, call)
                if found.guilty is not None:
                    assert call == 1 and found.guilty is begun
                    self.blamed.append((begun, index))
                return found.again
            for chunk, _ in items:
                chunk.done += 1
        return []


CHUNKS = st.lists(
    st.builds(Chunk, st.integers(1, 12), st.sets(st.integers(0, 11), max_size=2)),
    min_size=1, max_size=8,
)  # fmt: skip


@given(CHUNKS)
@examples(200)
def test_only_the_guilty_are_blamed_and_the_others_are_computed(chunks: list[Chunk]) -> None:
    cluster = Cluster()
    cluster.run(ChunkBatch(list(chunks), [sum(chunk.count for chunk in chunks)]))
    for chunk in chunks:
        guilty = [index for index in sorted(chunk.bad) if index < chunk.count]
        # Its dispatcher sends what is behind the guilty item again.
        assert chunk.done == (guilty[0] if guilty else chunk.count)
        assert [index for each, index in cluster.blamed if each is chunk] == guilty[:1]


def test_a_guilty_item_among_64_costs_seven_workers() -> None:
    chunks = [Chunk(1, {0} if n == 41 else set()) for n in range(64)]
    cluster = Cluster(64)
    cluster.run(ChunkBatch(list(chunks), [64]))
    assert cluster.deaths == 7 and cluster.blamed == [(chunks[41], 0)]
    assert sum(cluster.calls) < 64 + 2 * 64


def test_items_that_were_done_before_the_call_are_not_suspected() -> None:
    chunk = Chunk(20)
    batch = ChunkBatch([chunk], [20])
    chunk.done = 3  # Reported; five more are not.
    (again,) = halved(batch, chunk, 5, 8).again
    assert again.runs == [5, 4, 4, 4] and again.is_split


def test_without_a_call_the_chunks_are_parted_until_one_is_alone() -> None:
    chunks = [Chunk(1), Chunk(2), Chunk(3)]
    first, second = halved(ChunkBatch(chunks, [6]), chunks[0], None, 1).again
    assert (first.chunks, first.runs) == (chunks[:1], [1])
    assert (second.chunks, second.runs) == (chunks[1:], [5])
    found = halved(first, chunks[0], None, 1)
    assert found.guilty is chunks[0] and not found.again


def test_a_batch_is_full_or_has_lingered() -> None:
    gathering: Gathering[Chunk] = Gathering()
    first, second, third, fourth = Chunk(3), Chunk(4), Chunk(2), Chunk(6)
    gathering.add("f", first, SIZE, 0.5, 10.0)
    gathering.add("g", third, SIZE, 0.25, 10.0)
    assert gathering.open == 2 and not gathering.has_ready and gathering.due == 10.25
    gathering.add("f", second, SIZE, 0.5, 10.2)
    gathering.add("f", fourth, SIZE, 0.5, 10.2)  # It does not fit any more.
    batch = gathering.take()
    assert batch is not None and batch.chunks == [first, second] and batch.runs == [7]
    gathering.on_time(10.3)
    batch = gathering.take()
    assert batch is not None and batch.chunks == [third]
    gathering.add("f", Chunk(2), SIZE, 0.5, 10.4)
    assert gathering.has_ready, "full"
    assert gathering.take() and not gathering.open
    gathering.add("f", Chunk(SIZE + 1), SIZE, 0.5, 10.4)
    gathering.add("f", Chunk(1), SIZE, 0.0, 10.4)
    assert gathering.take() and gathering.take() and not gathering.take()


class Gathers(RuleBasedStateMachine):
    """Chunks that come, leave, and begin in any order: each has one end."""

    def __init__(self) -> None:
        super().__init__()
        self.gathering: Gathering[Chunk] = Gathering()
        self.here: list[Chunk] = []
        self.now = 0.0

    @rule(key=st.sampled_from("fg"), count=st.integers(1, 10), linger=st.sampled_from([0, 1, 5]))
    def comes(self, key: str, count: int, linger: float) -> None:
        chunk = Chunk(count)
        self.here.append(chunk)
        self.gathering.add(key, chunk, SIZE, linger, self.now)

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0]))
    def waits(self, seconds: float) -> None:
        self.now += seconds
        self.gathering.on_time(self.now)
        assert self.gathering.due is None or self.gathering.due > self.now

    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        if self.here:
            chunk = data.draw(st.sampled_from(self.here))
            self.here.remove(chunk)
            self.gathering.drop(chunk)

    @rule(dies=st.booleans())
    def begins(self, dies: bool) -> None:
        batch = self.gathering.take()
        if batch is None:
            return
        assert batch.items == sum(batch.runs)
        assert len(batch.chunks) == 1 or batch.items <= SIZE
        if dies and batch.items > 1:
            first = batch.chunks[0]
            self.gathering.add_again(halved(batch, first, 0, min(batch.items, SIZE)).again)
        else:
            self.here = [chunk for chunk in self.here if chunk not in batch.chunks]

    @rule()
    def hurries(self) -> None:
        self.gathering.hurry()

    @rule(all_of_them=st.booleans())
    def is_given_back(self, all_of_them: bool) -> None:
        gathering = self.gathering
        given = gathering.clear() if all_of_them else gathering.take_unsplit()
        self.here = [chunk for chunk in self.here if chunk not in given]
        assert not gathering.open

    @invariant()
    def nothing_is_lost(self) -> None:
        gathering = self.gathering
        kept = [c for each in gathering._open.values() for c in each.chunks]
        kept += [c for each in gathering._ready for c in each.chunks]
        assert sorted(map(id, kept)) == sorted(map(id, self.here))


TestGathers = Gathers.TestCase
TestGathers.settings = examples(60)
