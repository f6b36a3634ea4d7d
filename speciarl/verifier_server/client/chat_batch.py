"""Chat batcher: sends chats of the same instant in one HTTP request, where the server takes several.

vLLM's ``/v1/chat/completions/batch`` judges each conversation by itself and replies when all are done; with one token
each that is the same moment. This saves HTTP overhead on both sides, and more chats meet in one step of the engine. No
chat waits for others.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from speciarl.utils.batching import Batcher, Query
from speciarl.verdict import Reason, Unscorable
from speciarl.verifier_server.client.http import Client, Failure

Body = Mapping[str, Any]

_CLOSED = Failure(Unscorable(Reason.CANCELLED, "the verifier was closed"), transient=False)
_NO_SUCH_ROUTE = frozenset({404, 405, 501})


class ChatBatcher:
    """Batches the chats to one server. All bodies must agree in everything but their messages."""

    def __init__(self, client: Client, most: int) -> None:
        """At most `most` chats share a request."""
        self._client = client
        self._supported = True
        # A wait of 0 s ends in the event loop's next turn, so only chats that are ready by then share a request.
        self._batcher: Batcher[Body, object | Failure] = Batcher(self._send, most, 0.0, _CLOSED)

    async def chat(self, body: Body) -> object | Failure:
        """See `Client.chat`."""
        return await (self._batcher.ask(body) if self._supported else self._client.chat(body))

    async def aclose(self) -> None:
        """Cancel all requests."""
        await self._batcher.aclose()

    async def _send(self, asked: Sequence[Query[Body, object | Failure]]) -> None:
        if len(asked) == 1:
            asked[0].reply(await self._client.chat(asked[0].question))
            return
        reply = await self._client.chats(merge([one.question for one in asked]))
        replies = None if isinstance(reply, Failure) else split(reply, len(asked))
        if replies is not None:
            for one, part in zip(asked, replies, strict=True):
                one.reply(part)
        elif isinstance(reply, Failure) and (reply.status is None or reply.independent_of_request or reply.busy):
            for one in asked:
                one.reply(reply)  # the server is the cause: each chat is retried by itself, on another server
        else:
            # One of the chats may be the cause: sent by itself, each gets a reply or failure of its own.
            self._supported &= not (isinstance(reply, Failure) and reply.status in _NO_SUCH_ROUTE)
            await asyncio.gather(*(self._send([one]) for one in asked if one.pending))


async def takes_several(client: Client, body: Body, read: Callable[[object], object]) -> bool:
    """Whether the server replies to two chats of one request each by itself, and readably."""
    reply = await client.chats(merge([body, body]))
    parts = None if isinstance(reply, Failure) else split(reply, 2)
    return parts is not None and not any(isinstance(read(part), Unscorable) for part in parts)


def merge(bodies: Sequence[Body]) -> dict[str, Any]:
    """The body of one request with the conversations of all bodies."""
    # vLLM 0.24 takes this field for `return_tokens_as_token_ids` on its route for several chats.
    return {**bodies[0], "return_token_ids": True, "messages": [body["messages"] for body in bodies]}


def split(reply: object, count: int) -> list[dict[str, Any]] | None:
    """One chat completion per conversation, in their order; None for a reply that does not hold exactly those.

    The token usage of all is reported with the first.
    """
    choices = reply.get("choices") if isinstance(reply, Mapping) else None
    if not isinstance(reply, Mapping) or not isinstance(choices, list):
        return None
    by_index = {choice.get("index"): choice for choice in choices if isinstance(choice, Mapping)}
    if len(choices) != count or by_index.keys() != set(range(count)):
        return None
    parts = [{"choices": [by_index[index]]} for index in range(count)]
    return [{**parts[0], "usage": reply.get("usage")}, *parts[1:]]
