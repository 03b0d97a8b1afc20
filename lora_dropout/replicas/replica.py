"""One replica: in what a run differs from its neighbours."""

from dataclasses import dataclass

from lora_dropout.checks import check_count, check_positive, check_probability, check_sequence
from lora_dropout.seeds import check_seed

_MOST = 10_000


@dataclass(frozen=True, kw_only=True)
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

    seed: int = 0
    examples: tuple[int, ...] | None = None
    learning_rate: float | None = None
    dropout: float | None = None
    regularization: float | None = None
    init_seed: int | None = None

    def __post_init__(self) -> None:
        self._set("seed", check_seed("seed", self.seed))
        if self.examples is not None:
            given = check_sequence("examples", self.examples, object)
            examples = tuple(check_count("examples", i, minimum=0) for i in given)
            if not examples:
                raise ValueError("examples must not be empty, got examples=()")
            self._set("examples", examples)
        if self.learning_rate is not None:
            self._set("learning_rate", check_positive("learning_rate", self.learning_rate))
        if self.dropout is not None:
            self._set("dropout", check_probability("dropout", self.dropout))
        if self.regularization is not None:
            weight = check_positive("regularization", self.regularization, zero_ok=True)
            self._set("regularization", weight)
        if self.init_seed is not None:
            self._set("init_seed", check_seed("init_seed", self.init_seed))

    def _set(self, name: str, value: object) -> None:
        # Plain numbers, whatever scalar type they came as.
        object.__setattr__(self, name, value)


def leave_one_out_replicas(n: int, *, seed: int = 0, **common: float) -> list[Replica]:
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
    n = check_count("n", n, minimum=2)
    if n > _MOST:
        raise ValueError(f"n must be at most {_MOST} to retrain without each, got n={n}")
    check_seed("seed", seed)
    everything = tuple(range(n))
    subsets = [everything] + [everything[:i] + everything[i + 1 :] for i in range(n)]
    return [Replica(seed=seed, examples=subset, **common) for subset in subsets]  # type: ignore[arg-type]
