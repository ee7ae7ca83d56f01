"""Tensors without values, and running torch on them: shapes are followed, numbers are not.

A hollow tensor has the shape, type and device of a real one, but all its elements are one and the same element in
memory. Under `HollowRun` an operation on hollow tensors gives hollow tensors and computes nothing, so that the
operations of a large piece of work can be watched in milliseconds and without its memory. What decides where a program
goes stays real: labels, indices, masks made of them, and anything else that is small and does not come from a hollow
tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import _disable_current_modes

from lite_bench.harness.measurement.arithmetic import base_name, is_view

LARGE = 2**16
"""Elements above which floating-point values and bytes are not computed even if they could be."""
LARGE_INDEX = 2**22
"""The same for integers and truth values, which say where a program goes."""
PRUNE = 4096


class NotCountableError(Exception):
    """What happens next depends on values that are not computed.

    Attributes:
        operation: name of the operation that asked for them.
    """

    def __init__(self, operation: str, reason: str) -> None:
        """Build the message."""
        super().__init__(f"{operation} cannot be followed without computing: {reason}.")
        self.operation = operation


_elements: dict[tuple[torch.dtype, torch.device], Tensor] = {}
_hollow_storages: set[int] = set()


def hollow(shape: Sequence[int], dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """Make a tensor without values and without memory of its own.

    Read all the same, a floating-point element is 1, a whole number 0, a truth value False.

    Args:
        shape: of the tensor.
        dtype: of its elements.
        device: where it claims to be.
    """
    with _disable_current_modes(), torch.inference_mode(mode=False), torch.no_grad():
        place = torch.empty((), device=device).device  # with its number
        element = _elements.get((dtype, place))
        if element is None:
            element = _elements[dtype, place] = _filler(dtype, place, ())
            _hollow_storages.add(element.untyped_storage()._cdata)  # noqa: SLF001 - the identity of a storage
        # Not a view: views share the count of changes by which autograd tells that a saved tensor is stale.
        tensor = torch.empty(0, dtype=dtype, device=place)
        return tensor.set_(element.untyped_storage(), 0, tuple(shape), (0,) * len(shape))


def _filler(dtype: torch.dtype, device: torch.device, shape: Sequence[int], truth: bool = False) -> Tensor:
    """Make a real tensor of what stands for unknown values: 1 divides, and 0 is an index."""
    inexact = dtype.is_floating_point or dtype.is_complex
    return torch.full(tuple(shape), truth if dtype == torch.bool else int(inexact), dtype=dtype, device=device)


class _Storages:
    """A set of pieces of memory that keeps none of them alive."""

    def __init__(self) -> None:
        self.references: dict[int, StorageWeakRef] = {}
        self.limit = PRUNE

    def add(self, tensor: Tensor) -> None:
        if tensor in self:
            return
        reference = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]  # torch
        self.references[reference.cdata] = reference
        if len(self.references) > self.limit:
            alive = {key: ref for key, ref in self.references.items() if not ref.expired()}  # type: ignore[no-untyped-call]  # torch
            self.references = alive
            self.limit = max(PRUNE, 2 * len(self.references))

    def __contains__(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self.references  # noqa: SLF001 - its identity


RUN_AS_THEY_ARE = frozenset({"_fused_sdp_choice", "_local_scalar_dense", "is_pinned"})
CHECKS = frozenset({"_linalg_check_errors", "_assert_async", "_functional_assert_async", "_assert_tensor_metadata"})
ORDERED = frozenset({"lt", "le", "gt", "ge"})
"""Comparisons that decide how far a loop goes; whether all is finite is another matter, and taken to be so."""
NEED_VALUES = frozenset({"equal", "allclose", "nonzero", "masked_select", "bincount", "_unique2", "_unique"})


class HollowRun:
    """Runs operations without computing values, if they work on hollow tensors or on much.

    Nothing that was there before changes: memory that the work did not make itself is not written to (what it would
    have held is unknown from then on), gradients of leaves and the states of random generators are put back at the
    end.
    """

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._shapes: dict[Any, Any] = {}
        self._unknown = _Storages()
        self._own = _Storages()
        self._guessed = _Storages()
        self._gradients: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._generators: list[tuple[torch.Generator, Tensor]] = []

    def __enter__(self) -> HollowRun:
        """Begin; random states are kept."""
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]  # torch
        self._fork = torch.random.fork_rng(list(devices))
        self._fork.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; gradients and random states are put back."""
        del kind, error, trace
        for leaf, gradient in self._gradients.values():
            leaf.grad = gradient
        for generator, state in self._generators:
            generator.set_state(state)
        self._fork.__exit__(None, None, None)

    def __call__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation, or follow its shapes.

        Raises:
            NotCountableError: its result depends on values.
        """
        if not hasattr(func, "_schema"):
            raise NotCountableError(str(func), "it is not a single operation")
        tensors = list(_tensors(args, kwargs))
        for tensor in tensors:
            self._remember_gradient(tensor)
        name = base_name(func._schema.name.partition("::")[2])  # noqa: SLF001 - torch tells it nowhere else
        unknown = any(self.is_unknown(tensor) for tensor in tensors)
        if name == "_local_scalar_dense" and args[0] in self._guessed:
            raise NotCountableError("item", "a number that is not computed is read, and may decide how it goes on")
        if name in RUN_AS_THEY_ARE or func.namespace in {"prim", "profiler"}:
            return func(*args, **kwargs)
        if name in CHECKS and unknown:
            return None
        if is_view(func):
            return self._view(func, args, kwargs, name)
        if func._schema.is_mutable:  # noqa: SLF001 - as above
            return self._write(func, args, kwargs, name, unknown)
        if unknown or any(_is_large(tensor) for tensor in tensors) or "batch_norm" in name:
            return self._follow(func, args, kwargs, name, unknown)
        self._remember_generator(kwargs)
        if not tensors and any(_is_large(t) for t in _leaves(self._on_meta(func, args, kwargs, name))):
            return self._follow(func, args, kwargs, name, unknown)
        return self._really(func, args, kwargs)

    def is_unknown(self, tensor: Tensor) -> bool:
        """Say whether the values of a tensor are not computed."""
        return tensor.layout == torch.strided and (is_hollow(tensor) or tensor in self._unknown)

    def _really(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        guessed = any(tensor in self._guessed for tensor in _tensors(args, kwargs) if tensor.layout == torch.strided)
        ordered = base_name(func._schema.name.partition("::")[2]) in ORDERED  # noqa: SLF001 - torch tells it nowhere else
        result = func(*args, **kwargs)
        for tensor in _leaves(result):
            if tensor.layout == torch.strided:
                self._own.add(tensor)
                if guessed and (tensor.is_floating_point() or ordered):
                    self._guessed.add(tensor)
        return result

    def _view(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
        """Make a view, which shares memory and with it whether its values are known."""
        if name == "lift_fresh":  # numbers of the program, just made into a tensor
            return self._really(func, args, kwargs)
        try:
            return func(*args, **kwargs)
        except RuntimeError:
            if not is_hollow(args[0]):
                raise
        return self._follow(func, args, kwargs, name, unknown=True)  # such as another type of the same bytes

    def _write(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, unknown: bool) -> Any:
        """Run an operation that changes some of its arguments, if all is known and they were made by the work."""
        schema = func._schema  # noqa: SLF001 - as above
        written = [
            tensor
            for i, argument in enumerate(schema.arguments)
            if argument.is_write
            for tensor in _leaves(args[i] if i < len(args) else kwargs.get(argument.name))
        ]
        if torch.Tag.inplace_view in func.tags and not name.startswith(("resize", "set")):
            return func(*args, **kwargs)
        mine = all(tensor in self._own for tensor in written)
        if mine and not unknown and not any(_is_large(t) for t in _tensors(args, kwargs)):
            self._remember_generator(kwargs)
            return func(*args, **kwargs)
        if torch.Tag.inplace_view in func.tags:
            raise NotCountableError(name, "it changes the memory of a tensor whose values are unknown")
        for tensor in written:
            if not is_hollow(tensor):
                self._unknown.add(tensor)
        returns = schema.returns
        if all(r.alias_info is not None and r.alias_info.is_write for r in returns):
            results = written[: len(returns)]
            return None if not results else results[0] if len(results) == 1 else tuple(results)
        return self._follow(func, args, kwargs, name, unknown)

    def _follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, unknown: bool) -> Any:
        """Give hollow results of the right shape, type and device."""
        if name in NEED_VALUES:
            if unknown:
                raise NotCountableError(name, "its result depends on values")
            return self._really(func, args, kwargs)
        if name in {"index", "_unsafe_index"}:
            args = (args[0], [place for index in args[1] for place in self._places(index)], *args[2:])
        elif name in {"index_put", "_unsafe_index_put"}:
            args = (args[0], [], *args[2:])  # the shape is that of what is written into
        shapes = self._on_meta(func, args, kwargs, name)
        device = kwargs.get("device")
        if device is None:
            device = _device(list(_tensors(args, kwargs)))
        truth = name in {"all", "isfinite", "_is_all_true"}

        def fill(like: Tensor) -> Tensor:
            if like.numel() <= 1:
                return self._made(_filler(like.dtype, torch.device(device), like.shape, truth))
            return hollow(like.shape, like.dtype, device)

        return _mapped(shapes, fill)

    def _made(self, tensor: Tensor) -> Tensor:
        self._own.add(tensor)
        if tensor.is_floating_point():
            self._guessed.add(tensor)
        return tensor

    def _on_meta(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
        """Run an operation on the shapes of its arguments, or remember what that gave for the same ones."""
        kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
        if "generator" in kwargs:
            kwargs["generator"] = None
        if "device" in kwargs or not any(True for _ in _tensors(args, kwargs)):
            kwargs["device"] = "meta"
        call = (func, _signature(args), _signature(list(kwargs.items())))
        try:
            if call not in self._shapes:
                self._shapes[call] = func(*_mapped(args, _as_shape), **_mapped(kwargs, _as_shape))
            return self._shapes[call]
        except NotImplementedError as error:
            raise NotCountableError(name, "torch knows no rule for the shape of its result") from error
        except RuntimeError as error:
            if torch.Tag.dynamic_output_shape in func.tags or torch.Tag.data_dependent_output in func.tags:
                raise NotCountableError(name, "the shape of its result depends on values") from error
            if "no fake impl" in str(error):  # of an operation that is not torch's own
                raise NotCountableError(name, "its author gave no rule for the shape of its result") from error
            raise

    def _places(self, index: Tensor | None) -> Iterator[Tensor | None]:
        """Turn a mask, whose count of true values makes a shape, into the places of these, by dimension."""
        if index is None or index.dtype not in {torch.bool, torch.uint8}:
            yield index
        elif self.is_unknown(index):
            raise NotCountableError("index", "its mask depends on values")
        else:
            yield from index.nonzero().unbind(1)

    def _remember_gradient(self, tensor: Tensor) -> None:
        """Keep the gradient of a leaf that was there before the work."""
        if not (tensor.requires_grad and tensor.is_leaf) or id(tensor) in self._gradients:
            return
        if tensor.layout != torch.strided or not (is_hollow(tensor) or tensor in self._own):
            self._gradients[id(tensor)] = (tensor, tensor.grad)

    def _remember_generator(self, kwargs: Mapping[str, Any]) -> None:
        generator = kwargs.get("generator")
        if generator is not None and all(generator is not known for known, _ in self._generators):
            self._generators.append((generator, generator.get_state()))


def is_hollow(tensor: Tensor) -> bool:
    """Say whether a tensor is one made by `hollow`, or a view of one."""
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        return False
    return tensor.untyped_storage()._cdata in _hollow_storages  # noqa: SLF001 - the identity of a storage


def _is_large(tensor: Tensor) -> bool:
    index = tensor.dtype in {torch.int64, torch.int32, torch.bool}
    return tensor.numel() > (LARGE_INDEX if index else LARGE)


def _as_shape(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _mapped(values: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply ``change`` to all tensors in lists, tuples and dicts."""
    if isinstance(values, Tensor):
        return change(values)
    if isinstance(values, dict):
        return {key: _mapped(value, change) for key, value in values.items()}
    if isinstance(values, list | tuple):
        changed = [_mapped(value, change) for value in values]
        return changed if isinstance(values, list) else tuple(changed)
    return values


def _signature(values: Any) -> Any:
    """Give what the shape of a result depends on, as something that can be a key; 1 and 1.0 are not the same."""
    if isinstance(values, Tensor):
        return values.shape, values.dtype
    if isinstance(values, list | tuple):
        return tuple(_signature(value) for value in values)
    return type(values), values


def _device(tensors: Sequence[Tensor]) -> torch.device:
    """Give the device of a result: a number may come from elsewhere."""
    return next((t.device for t in tensors if t.ndim), tensors[0].device if tensors else torch.device("cpu"))


def _leaves(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _leaves(value)


def _tensors(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    yield from _leaves(args)
    yield from _leaves(list(kwargs.values()))
