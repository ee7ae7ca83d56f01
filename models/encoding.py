"""How support images pass through a network: at once, chunk by chunk, with a graph for some of them, or without.

A learner calls ``encode(network, images)``; every class here is one such ``encode``. Shape letters: N support images, H
of them with a gradient, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lite_bench.harness.clips import per_item
from lite_bench.models.draws import Rows, draw_importance, draw_stratified

Network = Callable[[Tensor], Tensor]


def encode_in_chunks(network: Network, images: Tensor, chunk: int) -> Tensor:
    """Apply ``network`` to images [N, 3, S, S], at most ``chunk`` at a time; returns [N, D]."""
    return torch.cat([network(part) for part in torch.split(images, chunk)])


def scale_gradient(values: Tensor, factors: Tensor | float) -> Tensor:
    """Give ``values`` [H, D] unchanged, the derivative of each row multiplied by its factor (straight-through)."""
    if isinstance(factors, Tensor):
        factors = factors.to(values.dtype).unsqueeze(1)
    return values.detach() + factors * (values - values.detach())


def encode_recomputed(network: Network, images: Tensor, chunk: int) -> Tensor:
    """Apply ``network`` with a graph of one chunk at a time: each is recomputed when the backward pass reaches it.

    Dropout, stochastic depth and autocast replay in the recomputation. What fits into one chunk keeps its graph.
    """
    if len(images) <= chunk:
        return network(images)
    parts = torch.split(images, chunk)
    return torch.cat([checkpoint(network, part, use_reentrant=False, preserve_rng_state=True) for part in parts])


def encode_with_gradient_rows(network: Network, images: Tensor, rows: Rows, chunk: int) -> Tensor:
    """Encode all images; ``rows`` carry a gradient, scaled by their factors, the others none.

    Each image is forwarded once, the complement of ``rows`` without a graph, ``rows`` with one; if ``rows`` do not fit
    into one chunk, their graph is recomputed chunk by chunk, so that the chunk bounds the memory whatever H.

    Args:
        network: maps [n, 3, S, S] to [n, D].
        images: [N, 3, S, S].
        rows: which images carry a gradient, and its factors.
        chunk: images at a time.

    Returns:
        [N, D], equal to the plain forward.
    """
    chosen = rows.to(images.device)
    rest = torch.ones(len(images), dtype=torch.bool, device=images.device)
    rest[chosen.indices] = False
    parts = []
    if len(chosen.indices):
        parts.append(scale_gradient(encode_recomputed(network, images[chosen.indices], chunk), chosen.factors))
    others = rest.nonzero().squeeze(1)
    with torch.no_grad():
        parts += [network(images[indices]) for indices in torch.split(others, chunk) if len(indices)]
    return torch.cat(parts)[torch.argsort(torch.cat([chosen.indices, others]))]


@dataclass
class FullEncode:
    """One graph over all N images; without gradients, chunk by chunk."""

    chunk: int

    def __call__(self, network: Network, images: Tensor) -> Tensor:
        """Encode [N, 3, S, S] to [N, D]."""
        return network(images) if torch.is_grad_enabled() else encode_in_chunks(network, images, self.chunk)


@dataclass
class ExactEncode:
    """The graph of one chunk at a time: chunks are recomputed in the backward pass."""

    chunk: int

    def __call__(self, network: Network, images: Tensor) -> Tensor:
        """Encode [N, 3, S, S] to [N, D]."""
        if not torch.is_grad_enabled():
            return encode_in_chunks(network, images, self.chunk)
        return encode_recomputed(network, images, self.chunk)


@dataclass
class LiteEncode:
    """LITE, eq. (8), with an independent draw in every call.

    Independence is what keeps learners that pass the support set twice unbiased: their set-encoder gradient is
    a product of two sums over the support set, and the expectation of a product factorises only then.
    """

    chunk: int
    draw: Callable[[], Rows]

    def __call__(self, network: Network, images: Tensor) -> Tensor:
        """Encode [N, 3, S, S] to [N, D]; the drawn rows carry their gradient times their factors."""
        if not torch.is_grad_enabled():
            return encode_in_chunks(network, images, self.chunk)
        return encode_with_gradient_rows(network, images, self.draw(), self.chunk)


@dataclass
class SharedDrawEncode:
    """What the released codes do: one draw for all passes, no factor on the support path, cached values.

    ``cache`` holds the features of all N images per pass, filled at the first query batch of a task and reused by the
    others.
    """

    chunk: int
    rows: Tensor
    cache: list[Tensor]
    passes: int = field(default=0, init=False)

    def __call__(self, network: Network, images: Tensor) -> Tensor:
        """Encode [N, 3, S, S] to [N, D]; the drawn rows carry their plain gradient."""
        if not torch.is_grad_enabled():
            return encode_in_chunks(network, images, self.chunk)
        if self.passes == len(self.cache):
            with torch.no_grad():
                self.cache.append(encode_in_chunks(network, images, self.chunk))
        values = self.cache[self.passes]
        self.passes += 1
        rows = self.rows.to(images.device)
        if not len(rows):
            return values
        return values.index_copy(0, rows, encode_recomputed(network, images[rows], self.chunk))


def encode_frames(network: Network, items: Tensor, chunk: int) -> Tensor:
    """Apply ``network``, which maps [n, 3, S, S] to [n, D], to every frame, at most ``chunk`` items at a time.

    Args:
        network: to run.
        items: images [N, 3, S, S], or clips [N, T, 3, S, S].
        chunk: items at a time.

    Returns:
        [N, D], or [N T, D]: the frames of the first clip, then of the second.
    """
    return torch.cat([network(part.flatten(0, -4)) for part in torch.split(items, chunk)])


@dataclass
class CachingEncode:
    """A pass of the whole support set without gradients that keeps what it computes, call after call, in ``cache``.

    A mean over the support set is taken over all frames, and the values of single frames are kept.
    """

    chunk: int
    cache: list[Tensor]

    def __call__(self, network: Network, images: Tensor) -> Tensor:
        """Encode [N, ...] to [N, D]."""
        self.cache.append(encode_in_chunks(network, images, self.chunk))
        return self.cache[-1]

    def mean(self, network: Network, images: Tensor) -> Tensor:
        """Average over all frames; [D]."""
        self.cache.append(encode_frames(network, images, self.chunk))
        return self.cache[-1].mean(0)


@dataclass
class OrbitCodeEncode:
    """What the released ORBIT code does with clips: one draw for all passes, the values of the rest from a cache.

    Its mean over the support set, the task embedding, mixes up clips and frames: beside all T frames of the H drawn
    clips it takes N - H single frames, those whose numbers among all N T frames are the numbers of the clips that were
    not drawn, so frames of about the first N / T clips alone. With T = 1 that is the plain mean. Where no gradient is
    asked for, as in an evaluation, everything is plain.

    The graph of all drawn clips is kept, as in that code: running their chunks again would count them twice in the
    running statistics of a BatchNorm.

    Attributes:
        chunk: items at a time.
        order: int64 [N], a permutation of the clips.
        h: how many of its first carry a gradient.
        cache: what `CachingEncode` kept of the same calls.
    """

    chunk: int
    order: Tensor
    h: int
    cache: list[Tensor]
    passes: int = field(default=0, init=False)

    def __call__(self, network: Network, images: Tensor) -> Tensor:
        """Encode [N, ...] to [N, D]; the drawn rows carry their plain gradient."""
        if not torch.is_grad_enabled():
            return encode_in_chunks(network, images, self.chunk)
        values, drawn = self._cached(), self._drawn(images)
        if not len(drawn):
            return values
        return values.index_copy(0, drawn, encode_in_chunks(network, images[drawn], self.chunk))

    def mean(self, network: Network, images: Tensor) -> Tensor:
        """Average frames as that code does; [D]."""
        if not torch.is_grad_enabled():
            return self(partial(per_item, network), images).mean(0)
        values, drawn = self._cached(), self._drawn(images)
        rest = values[self.order[self.h :].to(images.device)]  # rows of frames, by the numbers of clips
        if not len(drawn):
            return rest.mean(0)
        return torch.cat([encode_frames(network, images[drawn], self.chunk), rest]).mean(0)

    def _drawn(self, images: Tensor) -> Tensor:
        return self.order[: self.h].to(images.device)

    def _cached(self) -> Tensor:
        self.passes += 1
        return self.cache[self.passes - 1]


@dataclass
class _Pass:
    """One pass of the support set whose gradient is still to be taken.

    Attributes:
        network: what ran.
        images: its input, [N, 3, S, S].
        features: its output as a leaf, [N, D]; its ``.grad`` is what the rest of the task asks of each row.
        precision: context to run the network in again.
    """

    network: Network
    images: Tensor
    features: Tensor
    precision: Callable[[], torch.autocast]


@dataclass
class ImportanceEncode:
    """Rows are drawn in the backward pass, where it is known how much the loss asks of each.

    The forward keeps no graph at all: features enter the task as leaves. `finish` then goes through the passes from the
    last to the first: the gradient v_n at each feature row is known by then, rows are drawn with probabilities
    that follow |v_n|, spread over the classes, and only these are run again with a graph, chunk by chunk. A pass
    sees the (estimated) gradient of the passes after it, on which its own estimate depends linearly, so the means
    multiply out and the estimate of the whole is unbiased.

    A network that draws at random (dropout, stochastic depth) would draw otherwise for a row run again on its own. The
    rows of its pass are drawn ahead instead, spread over the classes, and keep their graph. That a pass is random is
    found out by running it, after which it starts anew; so it makes no difference to have known.

    Attributes:
        chunk: images at a time.
        h: rows to draw.
        labels: int64 [N], on the CPU.
        way: C.
        generator: randomness of the draws.
        random: numbers of the passes, from 0, whose networks are known to draw at random; added to.
    """

    chunk: int
    h: int
    labels: Tensor
    way: int
    generator: torch.Generator
    random: set[int]
    passes: list[_Pass] = field(default_factory=list, init=False)
    calls: int = field(default=0, init=False)

    def __call__(self, network: Network, images: Tensor) -> Tensor:
        """Encode [N, 3, S, S] to [N, D]."""
        if not torch.is_grad_enabled():
            return encode_in_chunks(network, images, self.chunk)
        number, self.calls = self.calls, self.calls + 1
        if number in self.random:
            return self._ahead(network, images)
        before = random_state(images.device)
        with torch.no_grad():
            features = encode_in_chunks(network, images, self.chunk)
        if not all(map(torch.equal, before, random_state(images.device))):
            restore_random_state(images.device, before)
            self.random.add(number)
            return self._ahead(network, images)
        features.requires_grad_(self.h > 0)
        self.passes.append(_Pass(network, images, features, autocast_as_now(images.device.type)))
        return features

    def _ahead(self, network: Network, images: Tensor) -> Tensor:
        rows = draw_stratified(self.labels, self.way, self.h, self.generator)
        return encode_with_gradient_rows(network, images, rows, self.chunk)

    def finish(self) -> None:
        """Carry the gradients gathered at the features into the networks."""
        while self.passes:
            done = self.passes.pop()
            if done.features.grad is not None:
                self._backward(done, done.features.grad)

    def _backward(self, done: _Pass, gradients: Tensor) -> None:
        sizes = gradients.norm(dim=1).double().cpu()
        if not bool(sizes.isfinite().all()):
            sizes = torch.ones_like(sizes)  # whoever takes the step will find out
        rows = draw_importance(sizes, self.labels, self.way, self.h, self.generator).to(gradients.device)
        if not len(rows.indices):
            return
        parts = torch.split(rows.indices, self.chunk)
        for number, indices in enumerate(parts):
            with torch.enable_grad(), done.precision():
                features = done.network(done.images[indices])
            if not features.requires_grad:
                return
            factors = rows.factors[number * self.chunk :][: len(indices)].to(gradients.dtype)
            # What chunks and queries share, such as the generators behind FiLM, is gone through once for each of them.
            features.backward(gradients[indices] * factors.unsqueeze(1), retain_graph=True)  # type: ignore[no-untyped-call]  # torch
            del features  # and with it this chunk's graph, before the next one is built


def autocast_as_now(device: str) -> Callable[[], torch.autocast]:
    """Remember whether autocast is on for ``device``; gives a maker of the same context."""
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    return lambda: torch.autocast(device, dtype=dtype, enabled=enabled)


def random_state(device: torch.device) -> list[Tensor]:
    """Give the states of the global random generators that networks on ``device`` may draw from."""
    on_gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_gpu]


def restore_random_state(device: torch.device, states: list[Tensor]) -> None:
    """Set the global random generators to states from `random_state`."""
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state, device)
