"""Overloads of torch that are other names, or cases, of another one: spelt as that one, so that they share a key.

``torch.concat`` is "an alias of ``torch.cat``" (torch's documentation says so of each below, and its kernel for the one
calls the other); ``x.sum()`` is ``x.sum(dim=None)`` with no dim named. Only what torch itself defines by the other
overload is here, so the two are equal to the last bit; the tests watch torch's dispatcher do it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ALIASES = """
absolute.default=abs.default arccos.default=acos.default arccosh.default=acosh.default arcsin.default=asin.default
arcsinh.default=asinh.default arctan.default=atan.default arctan2.default=atan2.default arctanh.default=atanh.default
clip.default=clamp.default clip.Tensor=clamp.Tensor concat.default=cat.default concatenate.default=cat.default
divide.Tensor=div.Tensor divide.Scalar=div.Scalar divide.Tensor_mode=div.Tensor_mode
divide.Scalar_mode=div.Scalar_mode fix.default=trunc.default greater.Scalar=gt.Scalar greater.Tensor=gt.Tensor
greater_equal.Scalar=ge.Scalar greater_equal.Tensor=ge.Tensor less.Scalar=lt.Scalar less.Tensor=lt.Tensor
less_equal.Scalar=le.Scalar less_equal.Tensor=le.Tensor multiply.Scalar=mul.Scalar multiply.Tensor=mul.Tensor
negative.default=neg.default not_equal.Scalar=ne.Scalar not_equal.Tensor=ne.Tensor subtract.Scalar=sub.Scalar
subtract.Tensor=sub.Tensor swapaxes.default=transpose.int swapdims.default=transpose.int
true_divide.Tensor=div.Tensor true_divide.Scalar=div.Scalar special_exp2.default=exp2.default
special_expit.default=sigmoid.default special_expm1.default=expm1.default special_log1p.default=log1p.default
special_digamma.default=digamma.default special_psi.default=digamma.default special_erf.default=erf.default
special_erfc.default=erfc.default special_erfinv.default=erfinv.default special_gammaln.default=lgamma.default
special_i0.default=i0.default special_logit.default=logit.default special_sinc.default=sinc.default
special_xlogy.default=xlogy.Tensor special_xlogy.other_scalar=xlogy.Scalar_Other
special_xlogy.self_scalar=xlogy.Scalar_Self special_softmax.default=softmax.int
special_log_softmax.default=log_softmax.int special_logsumexp.default=logsumexp.default
var.dim=var.correction std.dim=std.correction var_mean.dim=var_mean.correction std_mean.dim=std_mean.correction
"""
ALIASES: Mapping[str, str] = {
    f"aten.{alias}": f"aten.{name}" for alias, name in (pair.split("=") for pair in _ALIASES.split())
}

CASES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "aten.sum.default": ("aten.sum.dim_IntList", {"dim": None, "keepdim": False}),
    "aten.mean.default": ("aten.mean.dim", {"dim": None, "keepdim": False}),
    "aten.arange.default": ("aten.arange.start_step", {"start": 0, "step": 1}),
    "aten.arange.start": ("aten.arange.start_step", {"step": 1}),
    "aten.div.Tensor": ("aten.div.Tensor_mode", {"rounding_mode": None}),
    "aten.div.Scalar": ("aten.div.Scalar_mode", {"rounding_mode": None}),
    "aten.round.default": ("aten.round.decimals", {"decimals": 0}),
    "aten.square.default": ("aten.pow.Tensor_Scalar", {"exponent": 2}),
}
"""Overloads that are a more general one with some arguments given."""


def general_of(name: str) -> tuple[str, Mapping[str, Any]]:
    """The overload that ``name`` is spelt as, and the arguments that it says by being itself."""
    name = ALIASES.get(name, name)
    return CASES.get(name, (name, {}))
