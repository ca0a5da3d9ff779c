"""How well a score puts things in order."""

from __future__ import annotations

from collections.abc import Iterable


def roc_auc(pairs: Iterable[tuple[float, bool]]) -> float:
    """Area under the ROC curve of (score, positive) pairs: the share of positive–negative pairs in the right order.

    Ties count half; NaN when there are only positives or only negatives. By ranks (Mann and Whitney, 1947).
    """
    ordered = sorted(pairs)
    ranks, i = 0.0, 0
    while i < len(ordered):
        j = i
        while j < len(ordered) and ordered[j][0] == ordered[i][0]:
            j += 1
        ranks += sum((i + j + 1) / 2 for k in range(i, j) if ordered[k][1])
        i = j
    positive = sum(1 for _, is_positive in ordered if is_positive)
    negative = len(ordered) - positive
    return (ranks - positive * (positive + 1) / 2) / (positive * negative) if positive and negative else float("nan")
