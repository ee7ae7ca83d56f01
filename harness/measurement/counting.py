"""Counting the multiply-accumulates of any piece of work, with or without computing it.

Everything that torch runs is seen one operation at a time: forward, backward, second derivatives, optimizer steps. An
operation is counted by a rule of `lite_bench.harness.measurement.arithmetic`, or needs none, or else is named, so that
a count never looks complete when it is not. Attention always runs in its plain form, so that its backward takes four
products on every device; a fused kernel computes one of them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lite_bench.harness.measurement.arithmetic import Rule, is_free, rule_of
from lite_bench.harness.measurement.hollow import HollowRun, NotCountableError, hollow, is_hollow
from lite_bench.harness.repetition import abridged

__all__ = ["Count", "NotCountableError", "Tally", "count", "count_hollow", "counting", "hollow"]


@dataclass(frozen=True)
class Count:
    """What a piece of work takes.

    Attributes:
        by_kind: multiply-accumulates of every kind of operation, such as ``convolution``.
        uncounted: names of operations that do arithmetic and have no rule, sorted.
    """

    by_kind: Mapping[str, int]
    uncounted: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all kinds."""
        return sum(self.by_kind.values())

    def __add__(self, other: Count) -> Count:
        """Put two pieces of work together."""
        return self._with(other, 1)

    def __sub__(self, other: Count) -> Count:
        """Say what this takes beyond ``other``."""
        return self._with(other, -1)

    def _with(self, other: Count, sign: int) -> Count:
        kinds = sorted({*self.by_kind, *other.by_kind})
        total = {kind: self.by_kind.get(kind, 0) + sign * other.by_kind.get(kind, 0) for kind in kinds}
        return Count(total, tuple(sorted({*self.uncounted, *other.uncounted})))


@dataclass
class Tally:
    """A count that goes on."""

    by_kind: Counter[str] = field(default_factory=Counter)
    uncounted: set[str] = field(default_factory=set)
    known: dict[Any, Rule | bool] = field(default_factory=dict)

    @property
    def macs(self) -> int:
        """Multiply-accumulates so far."""
        return self.by_kind.total()

    def rule(self, func: Any) -> Rule | bool:
        """Give the rule of an operation; True if it needs none, False if there is none."""
        if func not in self.known:
            single = hasattr(func, "_schema")  # not a higher-order operator, which runs functions
            self.known[func] = single and (rule_of(func) or is_free(func))
        return self.known[func]

    def add(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        """Count one operation that was run."""
        rule = self.rule(func)
        macs = rule.formula(args, kwargs, result) if isinstance(rule, Rule) else None
        if isinstance(rule, Rule) and macs is not None:
            self.by_kind[rule.kind] += macs
        elif rule is not True:
            self.uncounted.add(str(getattr(func, "overloadpacket", func)))

    def count(self) -> Count:
        """Give what was counted so far."""
        return Count(dict(sorted((+self.by_kind).items())), tuple(sorted(self.uncounted)))


def run_really(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation."""
    return func(*args, **kwargs)


class _CountingMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch
    """Counts what torch runs; operations that are only names for several others are taken apart first."""

    supports_higher_order_operators = True

    def __init__(self, tally: Tally, run: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self.tally = tally
        self.run = run

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if self.tally.rule(func) is False and hasattr(func, "decompose"):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = self.run(func, args, kwargs)
        self.tally.add(func, args, kwargs, result)
        return result


class _Leaving(TorchFunctionMode):
    """Notices numbers that leave torch for numpy, where nothing is counted."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally = tally

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        if func in LEAVING and args[0].is_floating_point():
            if is_hollow(args[0]):
                raise NotCountableError("numpy", "it computes outside of torch")
            self.tally.uncounted.add("numpy")
        return func(*args, **(kwargs or {}))


LEAVING = (Tensor.numpy, Tensor.__array__)


@contextmanager
def counting(hollowly: bool = False) -> Iterator[Tally]:
    """Count what is run inside the block; ``hollowly`` without computing it."""
    tally = Tally()
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast_path)
        torch.backends.mha.set_fastpath_enabled(False)  # whole encoder layers in one operation
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        run = stack.enter_context(HollowRun()) if hollowly else run_really
        stack.enter_context(_CountingMode(tally, run))
        stack.enter_context(_Leaving(tally))
        if hollowly:
            stack.enter_context(abridged(lambda: dict(tally.by_kind), tally.by_kind.update))
        yield tally


def count(work: Callable[[], object]) -> Count:
    """Run ``work`` and count its multiply-accumulates."""
    with counting() as tally:
        work()
    return tally.count()


def count_hollow(work: Callable[[], object]) -> Count:
    """Count the multiply-accumulates of ``work`` without computing anything large.

    What is to be saved must be `hollow`, usually the images; what is computed from it is so too. Labels stay real.
    Nothing outside changes: neither parameters and buffers nor gradients and random states. An optimizer must be made
    by ``work`` itself, or else would keep hollow moments. Loops over `repeated` run a few times and count for all.
    A whole number that is computed from hollow values, such as a count of correct answers, reads 0.

    Raises:
        NotCountableError: how it goes on depends on values that are not computed.
    """
    with counting(hollowly=True) as tally:
        work()
    return tally.count()
