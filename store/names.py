"""Names: hyperparameters have one canonical name, metrics a direction, credentials are recognised.

The canonical name is what the field calls the hyperparameter; the raw name a user typed is always kept beside it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from functools import lru_cache

from store.errors import ObjectiveError
from store.hyperparameters import BY_ALIAS


class Direction(StrEnum):
    """Whether larger or smaller values of an objective are better."""

    MIN = "min"
    MAX = "max"


@lru_cache(maxsize=4096)
def canonical_name(raw_name: str) -> str:
    """Return the canonical name of a hyperparameter, or the raw name where the field has no common one.

    Dotted names (``optimizer.lr``) are read per group of the optimizer, and stay as they are.
    """
    key = raw_name.strip().lower().replace("-", "_")
    return BY_ALIAS.get(key, raw_name)


_MIN_PART = 3
"""Letters from which a part of a name may mean it."""
_MISTYPED = 0.75
"""Likeness from which a word passes for a mistyped one."""


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """Return the known names that a mistyped one may mean, the nearest first; upper and lower case are alike."""
    spellings = {spelling.lower(): spelling for spelling in reversed(list(known))}
    wanted = name.lower()
    found = difflib.get_close_matches(wanted, spellings, n=n)
    found += [spelling for spelling in spellings if spelling not in found and len(wanted) >= _MIN_PART and wanted in spelling]
    return [spellings[spelling] for spelling in found[:n]]


def canonical_names(raw_names: list[str]) -> dict[str, str]:
    """Map raw names to canonical ones so that no two share one.

    Where two raw names mean the same hyperparameter (``lr`` and ``learning_rate``), the canonical spelling wins and the other one keeps
    its raw name.

    Args:
        raw_names: Raw names of one run, unique.

    Returns:
        ``{raw name: name to store it under}``.
    """
    taken: dict[str, str] = {}
    result: dict[str, str] = {}
    for raw in sorted(raw_names, key=lambda name: name != canonical_name(name)):  # stable: else in the given order
        name = canonical_name(raw)
        if name in taken:
            name = raw
        taken[name] = raw
        result[raw] = name
    return {raw: result[raw] for raw in raw_names}


_MAXIMISED = frozenset(
    str.split(
        "acc accuracy auc auroc auprc ap map map50 f1 f2 fbeta precision recall sensitivity specificity r2 iou miou dice "
        "bleu rouge rouge1 rouge2 rougel meteor chrf mcc kappa score reward return psnr ssim ndcg mrr top1 top5 hits "
        "spearman pearson spearmanr pearsonr corr correlation jaccard likelihood match throughput"
    )
)
_MINIMISED = frozenset(
    str.split(
        "loss losses error err mse rmse mae mape smape wape nll perplexity ppl wer cer bpc bpb entropy ce bce "
        "crossentropy logloss deviance distance fid hinge brier ece rmsle msle pinball crps hamming kl"
    )
)


def _metric_words(metric: str) -> list[str]:
    """``valF1/macro`` -> ``val f1 macro``."""
    return re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", metric).lower())


_FORKS = re.compile(r"(?<=.)(/dataloader_idx_\d+|_epoch|_step)$")


def base_metric_name(name: str, evaluation_sets: Collection[str] = ()) -> str:
    """Return the name that all spellings of one metric share: ``val_loss`` for ``val_loss_epoch`` and ``val_loss/dataloader_idx_0``.

    Args:
        name: Name as logged.
        evaluation_sets: Names of several evaluation sets, which a host writes into its metrics: ``eval_<name>_loss`` is ``eval_loss``.
    """
    base = name
    while (shorter := _FORKS.sub("", base)) != base:
        base = shorter
    for evaluation_set in evaluation_sets:
        if base.startswith(f"eval_{evaluation_set}_"):
            return f"eval_{base.removeprefix(f'eval_{evaluation_set}_')}"
    return base


def infer_direction(metric: str) -> Direction | None:
    """Return the direction of a well-known metric name, or None for a name nobody could know.

    A name that contains both (``accuracy_loss``) takes the last word, which is the noun.
    """
    words = _metric_words(metric)
    is_negated = "neg" in words or "negative" in words
    for word in reversed(words):
        for spelling in (word, word.rstrip("0123456789")):  # acc1, ap50
            if spelling in _MAXIMISED or spelling in _MINIMISED:
                return Direction.MAX if (spelling in _MAXIMISED) is not is_negated else Direction.MIN
    return None


_LOSS_WORDS = frozenset(str.split("loss losses nll elbo perplexity ppl ce bce crossentropy logloss criterion objective kl"))


def is_loss_name(metric: str) -> bool:
    """Return whether a metric is a loss by its name: its value then depends on how the loss is made."""
    return not _LOSS_WORDS.isdisjoint(_metric_words(metric))


_SHARES = frozenset(
    str.split(
        "acc accuracy auc auroc auprc ap map map50 f1 f2 fbeta precision recall sensitivity specificity "
        "iou miou dice kappa ndcg mrr top1 top5"
    )
)


def natural_bounds(metric: str, values: Sequence[float]) -> tuple[float, float]:
    """Return what a metric cannot leave: a share stays in [0, 1] or [0, 100], a loss that was never negative above 0.

    Args:
        metric: Name of the metric.
        values: Values seen, at least one.
    """
    words = set(_metric_words(metric))
    low, high = min(values), max(values)
    if words & _SHARES and low >= 0 and high <= 100:
        return 0.0, 1.0 if high <= 1 else 100.0
    if infer_direction(metric) is Direction.MIN and low >= 0:
        return 0.0, float("inf")
    return float("-inf"), float("inf")


def _or_respelled(metric: str) -> str:
    """Return the objective that a mistyped name may mean, as the end of a sentence; empty where no word of it is near a well-known one."""

    def respelled(found: re.Match[str]) -> str:
        known = sorted(word for word in _MAXIMISED | _MINIMISED if word.isalpha() and abs(len(word) - len(found[0])) <= 1)
        return next(iter(difflib.get_close_matches(found[0].lower(), known, n=1, cutoff=_MISTYPED)), found[0])

    name = re.sub(r"(?<![A-Za-z0-9])[A-Za-z]{3,}(?![A-Za-z0-9])", respelled, metric)
    return "" if name == metric else f", or objective={name!r} if that is meant"


def resolve_direction(objective: str, direction: str | None) -> Direction:
    """Return the given direction checked, or the one the objective's name implies.

    Raises:
        ObjectiveError: If ``direction`` is neither ``min`` nor ``max``, or is None for a name that does not imply it.
    """
    if direction is None:
        inferred = infer_direction(objective)
        if inferred is None:
            raise ObjectiveError(
                f"The direction of an objective must be known, but the name {objective!r} does not imply it; "
                f"possible are 'min' and 'max'. Pass direction='min' or direction='max'{_or_respelled(objective)}."
            )
        return inferred
    words = {"min": Direction.MIN, "minimize": Direction.MIN, "minimise": Direction.MIN}
    words |= {"max": Direction.MAX, "maximize": Direction.MAX, "maximise": Direction.MAX}
    found = words.get(str(direction).lower())
    if found is None:
        raise ObjectiveError(
            f"A direction must be 'min' or 'max', but got {direction!r} for the objective {objective!r}. Pass one of the two."
        )
    return found


_SECRET_PART = r"password|passwd|passphrase|passcode|secret(?!ar)|credential|api_?key|bearer|connection_string|webhook"
_SECRET_KEY = r"(api|access|private|auth|signing|encryption|ssh|hub|account|client|license|deploy|wandb|comet|neptune|hf)_keys?(_|$)"
_SECRET_WORDS = frozenset({"pwd", "pw", "authorization", "jwt", "cookie", "cookies", "creds", "dsn", "pat", "otp", "htpasswd", "netrc"})
# "token" is a word about text as well: pad_token, max_tokens, token_type_ids. What comes before or after it decides.
_TEXT_TOKENS = frozenset(
    str.split(
        "pad bos eos sep cls unk mask image audio video start end stop special prompt new next num n max min per total input "
        "output additional extra vocab decoder encoder begin last first target source query sub avg average mean"
    )
)
_ACCESS_TOKENS = frozenset(str.split("access auth api hub hf refresh session bot github gitlab wandb slack user personal"))


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Return whether a value under this name looks like a credential and must not reach the disk.

    Names such as ``pad_token_id`` or ``num_tokens`` are about text, not about access, and are kept.
    """
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    snake = re.sub(r"[^a-z0-9]+", "_", snake).strip("_")
    if re.search(_SECRET_PART, snake) or re.search(_SECRET_KEY, snake):
        return True
    words = snake.split("_")
    if words[-1] in _SECRET_WORDS or snake in {"auth", "basic_auth", "http_auth"}:
        return True
    before = words[-2] if len(words) > 1 else ""
    last = words[-1]
    if last.endswith("token"):
        return (before or last.removesuffix("token")) not in _TEXT_TOKENS
    return last == "tokens" and before in _ACCESS_TOKENS
