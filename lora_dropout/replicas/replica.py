"""One replica: in what a run differs from its neighbours."""

from functools import partial
from typing import Annotated, Any

import attrs

from lora_dropout.door import (
    NonNegative,
    Positive,
    Probability,
    by_domain,
    check_count,
    check_sequence,
    checked,
    trusted,
)
from lora_dropout.seeds import Seed

_MOST = 10_000


def _examples(name: str, value: Any) -> tuple[int, ...]:
    given = check_sequence(name, value, object)
    if not given:
        raise ValueError(f"{name} must not be empty, got {name}=()")
    return tuple(check_count(name, index, minimum=0) for index in given)


@attrs.frozen(kw_only=True, slots=False, field_transformer=by_domain)
class Replica:
    """In what one run differs from the others that are trained with it.

    Attributes:
        seed: Seed of data order and masks, as `FitConfig.seed`.
        examples: Indices of the shared training set, in any order, repeats allowed: (0, 3, 3)
            trains on example 0 once and on example 3 twice. None: the whole set.
        learning_rate: None is the configuration's.
        dropout: Rate p of the mask law; None is the adapters' own.
        regularization: Weight lambda of Eq. 11's penalty; None is the configuration's.
        init_seed: The initial factors are those that `adapt` draws from a generator of this seed
            (`seeded_generator`); None takes the model's present ones.
    """

    seed: Seed = 0
    examples: Annotated[tuple[int, ...], _examples] | None = None
    learning_rate: Positive | None = None
    dropout: Probability | None = None
    regularization: NonNegative | None = None
    init_seed: Seed | None = None


def known_replica(seed: int, examples: tuple[int, ...], **common: float) -> Replica:
    """A replica of values that are known to be valid."""
    fields = {field.name: None for field in attrs.fields(Replica)}
    return trusted(Replica, **{**fields, "seed": seed, "examples": examples, **common})


@checked
def leave_one_out_replicas(
    n: Annotated[int, partial(check_count, minimum=2)], *, seed: Seed = 0, **common: float
) -> list[Replica]:
    """The retrainings behind leave-one-out stability.

    Args:
        n: Size of the training set, at least 2.
        seed: Seed of data order and masks, the same for all.
        **common: Further fields of `Replica`, the same for all.

    Returns:
        n + 1 replicas: the whole set first, then the set without example 0, 1, ..., n - 1.

    Raises:
        ValueError: If n is below 2 or above 10,000: the indices alone take n^2 numbers.
    """
    if n > _MOST:
        raise ValueError(f"n must be at most {_MOST} to retrain without each, got n={n}")
    everything = tuple(range(n))
    subsets = [everything] + [everything[:i] + everything[i + 1 :] for i in range(n)]
    return [Replica(seed=seed, examples=subset, **common) for subset in subsets]  # type: ignore[arg-type]
