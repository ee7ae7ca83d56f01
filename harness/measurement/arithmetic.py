"""How many multiply-accumulates (MACs) a torch operation takes, by closed forms of the shapes alone.

A MAC is a multiplication whose product is added up; FLOPs are twice as many. Convolutions and matrix products follow
their definitions, zero padding included as if it were data. Linear algebra follows the multiplications of the standard
algorithm, where a division or a square root counts as one: LAPACK Working Note 41 (Blackford and Dongarra,
Installation Guide for LAPACK, 1999, appendix C). What a library really runs may differ in lower-order terms.

Shape letters: B batch, M, K, N sides of matrices, n side of a square one, k right-hand sides, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

Formula = Callable[[Sequence[Any], Mapping[str, Any], Any], int | None]
"""Gives MACs from positional arguments, keyword arguments and result; None where there is no rule for them."""


@dataclass(frozen=True)
class Rule:
    """What an operation counts as: a kind, such as ``convolution``, and a formula."""

    kind: str
    formula: Formula


# Convolutions -------------------------------------------------------------------------------------------------------


def convolution_macs(x: Tensor, weight: Tensor, result: Tensor, transposed: bool) -> int:
    """Count B x positions x weights: every weight meets every position of the result once, also with groups.

    Of a transposed convolution, whose backward this is, every position of its input.
    """
    positions = (x if transposed else result).shape[2:]
    return x.shape[0] * prod(positions) * weight.numel()


def _convolution(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    del kwargs
    return convolution_macs(args[0], args[1], out, args[6])


def _convolution_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """As much as forward for each gradient asked for, of the input and of the weights.

    The formula of ``torch.utils.flop_counter`` multiplies the latter by the number of groups; each weight has one
    gradient, a sum over the positions it met.
    """
    del kwargs, out
    wanted = sum(bool(flag) for flag in args[10][:2])
    return wanted * convolution_macs(args[1], args[2], args[0], args[7])


# Products -----------------------------------------------------------------------------------------------------------


def _product(first: int) -> Formula:
    """Count the product of arguments ``first`` [..., M, K] and the next [..., K, N] or [K]: B M K N."""

    def formula(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
        del kwargs, out
        a, b = args[first], args[first + 1]
        return int(a.numel() * (b.shape[-1] if b.ndim > 1 else 1))

    return formula


def _outer(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    del kwargs, out
    return int(args[1].numel() * args[2].numel())


def _attention(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """Q K^T and its product with V; masks and causality save nothing here."""
    del kwargs, out
    query, key, value = args[:3]
    return int(prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1]))


def _attention_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """Q K^T anew, then the gradients of V, of the weights, of Q and of K: 3 D of queries and 2 D of values."""
    del kwargs, out
    query, key, value = args[1:4]
    return int(prod(query.shape[:-1]) * key.shape[-2] * (3 * query.shape[-1] + 2 * value.shape[-1]))


def _distances(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int | None:
    """Sums of squared differences, D for each pair; other norms take no products, or powers that are not counted."""
    del kwargs
    power = float(args[2])
    if power in (0.0, 1.0, float("inf")):
        return 0
    return int(out.numel() * args[0].shape[-1]) if power == 2 else None


def _distances_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int | None:
    """One factor on the difference of each pair, D each."""
    del kwargs, out
    power = float(args[3])
    if power in (0.0, 1.0, float("inf")):
        return 0
    return int(args[0].numel() * args[1].shape[-1]) if power == 2 else None


def _distances_within(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int | None:
    power = float(args[1] if len(args) > 1 else 2)
    return _distances((args[0], args[0], power), kwargs, out)


def _distances_by_product(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """|a|^2 - 2 a b + |b|^2 as one product of rows that hold the squares and a 1 too: D + 2 for each pair."""
    del kwargs
    return int(out.numel() * (args[0].shape[-1] + 2))


# Interpolation ------------------------------------------------------------------------------------------------------


def taps(size: int, new_size: int, reach: float) -> int:
    """Count the pixels that a filter looks at, in one line of ``size`` pixels made ``new_size``.

    Args:
        size: pixels before.
        new_size: pixels after.
        reach: of the filter to each side, in pixels of the coarser line: 1 for bilinear, 2 for bicubic.
    """
    scale = size / new_size
    reach *= max(1.0, scale)
    centres = [(i + 0.5) * scale for i in range(new_size)]
    return sum(min(int(c + reach + 0.5), size) - max(int(c - reach + 0.5), 0) for c in centres)


def _antialiased(reach: float) -> Formula:
    """Lines first, then columns of what has the new width: B C (H taps of all columns + W' taps of all lines)."""

    def formula(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
        del kwargs
        (*_, height, width), (*_, new_height, new_width) = args[0].shape, out.shape
        planes = prod(out.shape[:-2])
        return int(planes * (height * taps(width, new_width, reach) + new_width * taps(height, new_height, reach)))

    return formula


def _antialiased_backward(reach: float) -> Formula:
    """The transpose: as many as forward."""
    forward = _antialiased(reach)
    return lambda args, kwargs, out: forward((out,), kwargs, args[0])


def _interpolation(neighbours: int) -> Formula:
    """One product for each neighbour of a new pixel."""

    def formula(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
        del args, kwargs
        return neighbours * int(out.numel())

    return formula


def _interpolation_backward(neighbours: int) -> Formula:
    """The transpose, from the gradient of the new pixels."""
    forward = _interpolation(neighbours)
    return lambda args, kwargs, out: forward((out,), kwargs, args[0])


# Linear algebra -----------------------------------------------------------------------------------------------------


def cholesky_macs(n: int) -> int:
    """xPOTRF: n^3/6 + n^2/2 + n/3, which is n (n + 1) (n + 2) / 6."""
    return n * (n + 1) * (n + 2) // 6


def lu_macs(m: int, n: int) -> int:
    """XGETRF of [m, n]: per column one reciprocal, a scaled column and an update; (n^3 + 2 n) / 3 if square."""
    return sum(1 + (m - j - 1) * (n - j) for j in range(min(m, n)))


def qr_macs(m: int, n: int) -> int:
    """XGEQRF of [m, n]: m n^2 - n^3/3 + m n + n^2/2 + 23 n/6, or the like for m < n."""
    if m >= n:
        return (6 * m * n**2 - 2 * n**3 + 6 * m * n + 3 * n**2 + 23 * n) // 6
    return (6 * n * m**2 - 2 * m**3 + 12 * n * m - 3 * m**2 + 23 * m) // 6


def reflectors_macs(m: int, n: int, k: int) -> int:
    """xORGQR, Q [m, n] from k reflectors: 2 m n k - (m + n) k^2 + 2 k^3/3 + 2 n k - k^2 - 5 k/3."""
    return (6 * m * n * k - 3 * (m + n) * k**2 + 2 * k**3 + 6 * n * k - 3 * k**2 - 5 * k) // 3


def _batch(matrices: Tensor) -> int:
    return prod(matrices.shape[:-2])


def _per_matrix(macs: Callable[[int], int]) -> Formula:
    """Count what a square matrix takes, for each in the batch of the first argument."""

    def formula(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
        del kwargs, out
        return _batch(args[0]) * macs(args[0].shape[-1])

    return formula


def _lu(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    del kwargs, out
    return _batch(args[0]) * lu_macs(*args[0].shape[-2:])


def _qr(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """The factorisation, and unless ``mode`` is ``r`` the columns of Q."""
    mode = args[1] if len(args) > 1 else kwargs.get("mode", "reduced")
    m, n = args[0].shape[-2:]
    columns = 0 if mode == "r" else out[0].shape[-1]
    return _batch(args[0]) * (qr_macs(m, n) + (reflectors_macs(m, columns, min(m, n)) if columns else 0))


def _geqrf(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    del kwargs, out
    return _batch(args[0]) * qr_macs(*args[0].shape[-2:])


def _householder(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    del kwargs, out
    m, n = args[0].shape[-2:]
    return _batch(args[0]) * reflectors_macs(m, n, args[1].shape[-1])


def _solve(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """xGETRF, and xGETRS with n^2 for each right-hand side."""
    del kwargs
    n = args[0].shape[-1]
    return _batch(out[1]) * lu_macs(n, n) + int(out[0].numel() * n)


def _lu_solve(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    del kwargs
    return int(out.numel() * args[0].shape[-1])


def _triangular(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """xTRTRS: n (n + 1) / 2 for each right-hand side, n (n - 1) / 2 where the diagonal is 1."""
    n = args[0].shape[-1]
    return int(out.numel() * (n - 1 if kwargs.get("unitriangular", False) else n + 1) // 2)


def _triangular_of_old(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    unit = args[4] if len(args) > 4 else kwargs.get("unitriangular", False)
    n = args[1].shape[-1]
    return int(out[0].numel() * (n - 1 if unit else n + 1) // 2)


def _cholesky_solve(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """xPOTRS: two triangular solves, n^2 + n for each right-hand side."""
    del kwargs
    return int(out.numel() * (args[1].shape[-1] + 1))


def _rules() -> dict[str, Rule]:
    """Give the rule of each operation, by its name without a trailing underscore."""
    factors: dict[str, Formula] = {
        "linalg_cholesky_ex": _per_matrix(cholesky_macs),
        "linalg_lu_factor_ex": _lu,
        "linalg_lu": _lu,
        "_linalg_det": _lu,
        "_linalg_slogdet": _lu,
        "linalg_qr": _qr,
        "geqrf": _geqrf,
        "linalg_householder_product": _householder,
    }
    solves: dict[str, Formula] = {
        "linalg_solve_triangular": _triangular,
        "triangular_solve": _triangular_of_old,
        "cholesky_solve": _cholesky_solve,
    }
    by_kind: dict[str, dict[str, Formula]] = {
        "convolution": {
            "convolution": _convolution,
            "_convolution": _convolution,
            "convolution_overrideable": _convolution,
            "convolution_backward": _convolution_backward,
            "convolution_backward_overrideable": _convolution_backward,
        },
        "matrix product": {
            **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot"), _product(0)),
            **dict.fromkeys(("addmm", "_addmm_activation", "baddbmm", "addbmm", "addmv"), _product(1)),
            "addr": _outer,
        },
        "attention": {},
        "interpolation": {},
        "distance": {
            "_cdist_forward": _distances,
            "_cdist_backward": _distances_backward,
            "_pdist_forward": _distances_within,
            "_euclidean_dist": _distances_by_product,
        },
        "factorisation": factors,
        "triangular solve": solves,
        "linear solve": {"_linalg_solve_ex": _solve, "linalg_lu_solve": _lu_solve},
        # xGETRF and xGETRI, or Gauss-Jordan elimination in place: n^3. A Cholesky factor gives half of xPOTRI twice.
        "inverse": {
            "linalg_inv_ex": _per_matrix(lambda n: n**3),
            "cholesky_inverse": _per_matrix(lambda n: 2 * cholesky_macs(n)),
        },
    }
    for way in ("efficient_attention", "flash_attention", "cudnn_attention", "fused_attention_overrideable"):
        by_kind["attention"][f"_scaled_dot_product_{way}"] = _attention
        by_kind["attention"][f"_scaled_dot_product_{way}_backward"] = _attention_backward
    by_kind["attention"]["_scaled_dot_product_flash_attention_for_cpu"] = _attention
    by_kind["attention"]["_scaled_dot_product_flash_attention_for_cpu_backward"] = _attention_backward
    for name, neighbours in (("linear1d", 2), ("bilinear2d", 4), ("trilinear3d", 8), ("bicubic2d", 16)):
        by_kind["interpolation"][f"upsample_{name}"] = _interpolation(neighbours)
        by_kind["interpolation"][f"upsample_{name}_backward"] = _interpolation_backward(neighbours)
    for name, reach in (("bilinear2d", 1.0), ("bicubic2d", 2.0)):
        by_kind["interpolation"][f"_upsample_{name}_aa"] = _antialiased(reach)
        by_kind["interpolation"][f"_upsample_{name}_aa_backward"] = _antialiased_backward(reach)
    return {name: Rule(kind, formula) for kind, rules in by_kind.items() for name, formula in rules.items()}


RULES = _rules()

# What is not arithmetic of this kind -------------------------------------------------------------------------------

_FREE_FAMILIES = """
_assert _foreach_ _functional_assert _fused_ _pin_memory _resize _to_dense _unique avg_pool batch_norm bernoulli
binary_cross_entropy embedding empty fill full index isin max_pool max_unpool multi_margin_loss multilabel_margin_loss
native_batch_norm native_group_norm native_layer_norm new_ nll_loss nonzero normal ones rand reflection_pad
replication_pad resize scatter soft_margin_loss uniform unique unsafe_split upsample_nearest _upsample_nearest zeros
"""
_FREE_NAMES = """
_adaptive_avg_pool2d _adaptive_avg_pool3d _add_relu _aminmax _batch_norm_no_update _batch_norm_with_update
_batch_norm_with_update_functional _chunk_cat _copy_from _cummax_helper _cummin_helper _embedding_bag
_embedding_bag_backward _embedding_bag_forward_only _fused_sdp_choice _has_same_storage_numel _index_put_impl
_is_all_true _is_any_true _linalg_check_errors _local_scalar_dense _log_softmax _log_softmax_backward_data
_logcumsumexp _masked_scale _masked_softmax _native_batch_norm_legit _native_batch_norm_legit_functional
_native_batch_norm_legit_no_training _prelu_kernel _safe_softmax _softmax _softmax_backward_data _stack _to_copy
_unsafe_index _unsafe_index_put _unsafe_masked_index _unsafe_masked_index_put_accumulate _unsafe_view
_weight_norm_interface adaptive_max_pool2d adaptive_max_pool3d all allclose amax amin aminmax any arange argmax argmin
argsort as_strided as_strided_scatter bincount block_diag bucketize cat cauchy channel_shuffle col2im complex
constant_pad_nd copy count_nonzero cudnn_batch_norm cummax cummin cumprod cumsum detach diag_embed diagonal
diagonal_scatter equal exponential eye flip gather geometric glu histc huber_loss im2col kthvalue lift lift_fresh
linalg_vector_norm linspace log_normal log_sigmoid log_sigmoid_forward logcumsumexp logspace logsumexp lu_unpack
masked_fill masked_scatter masked_select max mean median min miopen_batch_norm mode mse_loss multinomial nanmedian
nansum native_dropout native_norm norm one_hot pixel_shuffle pixel_unshuffle poisson prod put random range
record_stream renorm repeat repeat_interleave roll rot90 rrelu_with_noise rsub scalar_tensor searchsorted select
select_scatter set set_data slice slice_scatter smooth_l1_loss sort squeeze stack std std_mean sum t take
to_padded_tensor topk trace transpose tril tril_indices triu triu_indices unfold unsqueeze var var_mean zero
"""
FREE_FAMILIES = tuple(_FREE_FAMILIES.split())
"""Beginnings of the names of operations that are neither counted nor named."""
FREE_NAMES = frozenset(_FREE_NAMES.split())
"""Names of such operations: reductions, copies, factories, indexing, pooling, normalisation, softmax, losses, sorting,
random numbers, and the arithmetic of optimizers. Operations on single elements and views are known by their marks."""
FREE_NAMESPACES = ("prim", "profiler", "inductor")


def base_name(name: str) -> str:
    """Drop what marks an operation in place."""
    return name if name.startswith("__") else name.rstrip("_")


def rule_of(operation: Any) -> Rule | None:
    """Find the rule of an operation (``torch._ops.OpOverload``), or None."""
    namespace, _, name = operation._schema.name.partition("::")  # noqa: SLF001 - its only public form is a string
    return RULES.get(base_name(name)) if namespace == "aten" else None


def is_free(operation: Any) -> bool:
    """Say whether an operation without a rule needs none: it works on single elements, moves or adds up values."""
    namespace, _, name = operation._schema.name.partition("::")  # noqa: SLF001 - its only public form is a string
    if namespace in FREE_NAMESPACES:
        return True
    if torch.Tag.pointwise in operation.tags or is_view(operation):
        return True
    if namespace != "aten":
        return False
    name = base_name(name)
    forward = base_name(name.removesuffix("_backward"))
    if name.startswith("_foreach_mm"):
        return False  # products of matrices, among a family that works on single elements
    return name in FREE_NAMES or forward in FREE_NAMES or forward.startswith(FREE_FAMILIES) or _is_pointwise(forward)


def is_view(operation: Any) -> bool:
    """Say whether all that an operation gives are views of what it takes."""
    returns = operation._schema.returns  # noqa: SLF001 - torch shows views nowhere else
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def _is_pointwise(name: str) -> bool:
    """Say whether an operation of this name works on single elements; not every form of it is marked so."""
    packet = getattr(torch.ops.aten, name, None)
    return packet is not None and any(torch.Tag.pointwise in getattr(packet, o).tags for o in packet.overloads())
