"""Three ways for labelled examples (x_t, y_t) to become tokens, and where y_t is read.

    interleaved   x_1 y_1 x_2 y_2 ...       two tokens each, y_t read at x_t's token (Garg et al., arXiv:2208.01066)
    shifted       (x_1, -) (x_2, y_1) ...   one token each, y_t read at its own token
    joint         (x_1, y_1) (x_2, y_2) ... one token each; a query (x_t, -) reads what came before t and never writes

x: [batch, time, features]; y: [batch, time]; hidden: [batch, time, width], from which y_t is to be read.
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from contexture.models.kinds import AnyBackbone


class PairsState(NamedTuple):
    """The backbone's state, and the last y [batch] with whether there was one, bool [batch]."""

    backbone: Any
    last: Tensor
    known: Tensor


class Embeddings(Protocol):
    """Vectors for x and for y; an unknown y has its own."""

    def features(self, x: Tensor) -> Tensor:
        """[batch, time, features] to [batch, time, width]."""
        ...

    def target(self, y: Tensor, known: Tensor) -> Tensor:
        """[batch, time] to [batch, time, width]; `known` is bool [batch, time]."""
        ...


class Interleaved:
    """Two tokens to an example."""

    def tokens(self, embed: Embeddings, x: Tensor, y: Tensor) -> Tensor:
        """[batch, 2 * time, width]."""
        known = torch.ones_like(y, dtype=torch.bool)
        return torch.stack((embed.features(x), embed.target(y, known)), dim=2).flatten(1, 2)

    def forward(self, embed: Embeddings, backbone: AnyBackbone, x: Tensor, y: Tensor) -> Tensor:
        """Hidden vectors of a whole episode."""
        return backbone(self.tokens(embed, x, y), every=2)

    def stream(
        self, embed: Embeddings, backbone: AnyBackbone, x: Tensor, y: Tensor, state: PairsState
    ) -> tuple[Tensor, Any]:
        """Hidden vectors of further examples."""
        hidden, after = backbone.stream(self.tokens(embed, x, y), state.backbone)
        return hidden[:, ::2], after

    def read(self, embed: Embeddings, backbone: AnyBackbone, x: Tensor, state: PairsState) -> Tensor:
        """The hidden vector of one query per row, [batch, 1, width]."""
        return backbone.stream(embed.features(x), state.backbone)[0]


class Shifted:
    """Each x together with the y before it."""

    def tokens(self, embed: Embeddings, x: Tensor, y: Tensor, last: Tensor, known: Tensor) -> Tensor:
        """[batch, time, width]."""
        before = torch.cat((last.unsqueeze(1).to(y.dtype), y[:, :-1]), dim=1)
        there = torch.cat((known.unsqueeze(1), torch.ones_like(y[:, :-1], dtype=torch.bool)), dim=1)
        return embed.features(x) + embed.target(before, there)

    def forward(self, embed: Embeddings, backbone: AnyBackbone, x: Tensor, y: Tensor) -> Tensor:
        """Hidden vectors of a whole episode."""
        nothing = torch.zeros_like(y[:, 0])
        return backbone(self.tokens(embed, x, y, nothing, nothing.bool()))

    def stream(
        self, embed: Embeddings, backbone: AnyBackbone, x: Tensor, y: Tensor, state: PairsState
    ) -> tuple[Tensor, Any]:
        """Hidden vectors of further examples."""
        return backbone.stream(self.tokens(embed, x, y, state.last, state.known), state.backbone)

    def read(self, embed: Embeddings, backbone: AnyBackbone, x: Tensor, state: PairsState) -> Tensor:
        """The hidden vector of one query per row, [batch, 1, width]."""
        token = embed.features(x) + embed.target(state.last.unsqueeze(1), state.known.unsqueeze(1))
        return backbone.stream(token, state.backbone)[0]


class Joint:
    """One token to an example, and queries that read between them.

    The queries of a whole episode go one after another, since what lies between two writes is a state.
    """

    def forward(self, embed: Embeddings, backbone: AnyBackbone, x: Tensor, y: Tensor) -> Tensor:
        """Hidden vectors of a whole episode."""
        start = backbone.init_state(x.shape[0], device=x.device, dtype=x.dtype)
        return self._run(embed, backbone, x, y, start)[0]

    def stream(
        self, embed: Embeddings, backbone: AnyBackbone, x: Tensor, y: Tensor, state: PairsState
    ) -> tuple[Tensor, Any]:
        """Hidden vectors of further examples."""
        return self._run(embed, backbone, x, y, state.backbone)

    def read(self, embed: Embeddings, backbone: AnyBackbone, x: Tensor, state: PairsState) -> Tensor:
        """The hidden vector of one query per row, [batch, 1, width]."""
        return backbone.stream(self._queries(embed, x, torch.zeros_like(state.last).unsqueeze(1)), state.backbone)[0]

    def _queries(self, embed: Embeddings, x: Tensor, nothing: Tensor) -> Tensor:
        return embed.features(x) + embed.target(nothing, torch.zeros_like(nothing, dtype=torch.bool))

    def _run(self, embed: Embeddings, backbone: AnyBackbone, x: Tensor, y: Tensor, state: Any) -> tuple[Tensor, Any]:
        examples = embed.features(x) + embed.target(y, torch.ones_like(y, dtype=torch.bool))
        queries, hidden = self._queries(embed, x, torch.zeros_like(y)), []
        for query, example in zip(torch.split(queries, 1, 1), torch.split(examples, 1, 1), strict=True):
            hidden.append(backbone.stream(query, state)[0])
            _, state = backbone.stream(example, state)
        return torch.cat(hidden, dim=1), state


FORMS: dict[str, Interleaved | Shifted | Joint] = {
    "interleaved": Interleaved(),
    "shifted": Shifted(),
    "joint": Joint(),
}
