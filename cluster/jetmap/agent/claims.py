"""Claim the chunks that this agent holds, and learn which of them are no longer wanted."""

from __future__ import annotations

import asyncio

from jetmap.wire.messages import ChunkKey, Claim, ClaimAnswer, encode
from jetmap.wire.timing import SILENCE

from .holdings import HeldChunk, Holdings
from .reports import Publish


class Claims:
    """Claims of one agent, and the answers to them.

    Args:
        agent, host: Id of the agent, and its host.
        mail: Subject on which dispatchers answer.
    """

    def __init__(self, held: Holdings, agent: str, host: str, mail: str, send: Publish) -> None:
        self._held = held
        self._agent = agent
        self._host = host
        self._mail = mail
        self._send = send
        self._sent = 0
        self._asked: dict[ChunkKey, tuple[int, asyncio.Future[bool]]] = {}

    async def send(self, items: dict[ChunkKey, int | None]) -> None:
        """Claim every chunk that is held. items: in progress, by chunk."""
        self._sent += 1
        for inbox, chunks in self._held.claims(items).items():
            claim = Claim(self._agent, self._host, self._mail, self._sent, chunks)
            await self._send(f"{inbox}.claim", encode(claim))

    async def ask(
        self, chunks: list[HeldChunk], items: dict[ChunkKey, int | None]
    ) -> dict[ChunkKey, bool | None]:
        """Ask whether chunks are wanted; None for those whose dispatcher does not answer."""
        loop = asyncio.get_running_loop()
        asked = {held.key: (self._sent + 1, loop.create_future()) for held in chunks}
        self._asked |= asked
        answers = {key: answer for key, (_, answer) in asked.items()}
        try:
            await self.send(items)
            await asyncio.wait(answers.values(), timeout=SILENCE)
        finally:
            for key in asked:
                self._asked.pop(key, None)
        return {key: answer.result() if answer.done() else None for key, answer in answers.items()}

    def refuse(self, held: HeldChunk) -> None:
        """Answer a pending question about this chunk: it is not wanted."""
        _, answer = self._asked.get(held.key, (0, None))
        if answer is not None and not answer.done():
            answer.set_result(False)

    def on_answer(self, answer: ClaimAnswer) -> None:
        """Process a dispatcher's answer: it wants every chunk that it did not name.

        Chunks that it named were refused before this call. An answer to an earlier claim says
        nothing of chunks asked about later.
        """
        for key, (sequence, asked) in self._asked.items():
            held = self._held.get(*key)
            ours = held is not None and held.head.inbox == answer.dispatcher
            if ours and answer.sequence >= sequence and not asked.done():
                asked.set_result(True)
