"""Trees that were learned elsewhere, at work: what a forest says of rows of features, in numpy.

A tree is stored depth first, so that what follows a node is its lower branch; trees lie one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixrl.measures import Array

LEAF = -1  # in place of a feature's number


@dataclass(frozen=True)
class Forest:
    """roots (trees,): the first node of each. Of each node: feature (nodes,) that it looks at, or ``LEAF``; value
    (nodes,): the highest that goes to the lower branch, of a leaf its answer; upper (nodes,): how many nodes further
    the upper branch begins."""

    roots: NDArray[np.int32]
    feature: NDArray[np.int16]
    value: NDArray[np.float32]
    upper: NDArray[np.int16]

    def predict(self, rows: Array) -> Array:
        """(n,) the mean of the trees' answers to rows (n, features)."""
        rows = rows.astype(np.float32)
        node = np.repeat(self.roots[None].astype(np.int64), len(rows), axis=0)
        of = np.arange(len(rows))[:, None]
        while True:
            feature = self.feature[node]
            inside = feature != LEAF
            if not inside.any():
                return np.asarray(self.value[node].mean(axis=1, dtype=np.float64))
            higher = rows[of, feature] > self.value[node]
            node = np.where(inside, node + np.where(higher, self.upper[node], 1), node)

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Its arrays by name, as ``of`` takes them."""
        parts: dict[str, NDArray[Any]] = {"roots": self.roots, "feature": self.feature}
        parts |= {"value": self.value, "upper": self.upper}
        return {f"{prefix}.{name}": array for name, array in parts.items()}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], prefix: str) -> Forest:
        """The forest of these arrays. Raises ValueError for arrays that make none, whatever they hold."""
        try:
            roots = np.asarray(arrays[f"{prefix}.roots"], dtype=np.int32)
            feature = np.asarray(arrays[f"{prefix}.feature"], dtype=np.int16)
            value = np.asarray(arrays[f"{prefix}.value"], dtype=np.float32)
            upper = np.asarray(arrays[f"{prefix}.upper"], dtype=np.int16)
        except KeyError as missing:
            raise ValueError(f"no {missing} in it") from None
        if roots.ndim != 1 or not len(roots) or {feature.shape, value.shape, upper.shape} != {(len(feature),)}:
            raise ValueError(f"{prefix}: arrays of other shapes")
        inner = np.flatnonzero(feature != LEAF)
        ends = inner + np.maximum(upper[inner], 1)
        forward = (upper[inner] > 1).all() and (ends < len(feature)).all() and (feature[inner] >= 0).all()
        if not forward or (roots < 0).any() or (roots >= len(feature)).any() or not np.isfinite(value).all():
            raise ValueError(f"{prefix}: nodes that lead nowhere")
        return cls(roots, feature, value, upper)
