"""Data order and mask seeds of many runs, as `fit` draws them, laid out for one batch a step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lora_dropout.seeds import derived_generator


class BatchOrder:
    """Deals out the examples of K runs, step by step.

    A step has `slots` places a run. Runs with a smaller last batch, or fewer steps an epoch, leave
    places empty: these have weight 0 (and hold an example of the run, so that a loss exists).

    Args:
        examples: Indices into the shared training set, one tensor a run.
        seeds: Seed of each run.
        batch_size: Examples a step.
        n_instances: Mask draws a step of each run, as `fit` draws them.
        blocks: Number of blocks that a batch is dealt into among a run's masks (1: not dealt).

    Attributes:
        steps: Steps an epoch, for each run; int64, shape (K,).
        weights: 1 / batch size for each place in use, float64, shape (S, K, slots), where S is the
            greatest number of steps and slots = batch_size rounded up to whole blocks.
    """

    def __init__(
        self,
        examples: Sequence[Tensor],
        seeds: Sequence[int],
        *,
        batch_size: int,
        n_instances: Sequence[int],
        blocks: int = 1,
    ) -> None:
        self.generators = [derived_generator(seed, "training") for seed in seeds]
        self.sizes = torch.tensor([len(chosen) for chosen in examples])
        self.examples = torch.nn.utils.rnn.pad_sequence(list(examples), batch_first=True)
        self.n_instances = list(n_instances)
        self.steps = -(-self.sizes // batch_size)
        self._positions, self.weights = _layout(self.sizes, batch_size, blocks)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Draw one epoch.

        Returns:
            (indices into the training set, int64 of shape (S, K, slots); mask seeds, int64 of shape
            (S, K, N), N the greatest number of instances; a run of one draw repeats it).
        """
        n_steps, most = int(self.steps.max()), max(self.n_instances)
        orders = torch.zeros_like(self.examples)
        seeds = torch.zeros(len(self.generators), n_steps, most, dtype=torch.int64)
        runs = zip(
            self.generators,
            self.sizes.tolist(),
            self.steps.tolist(),
            self.n_instances,
            strict=True,
        )
        for k, (generator, size, steps, n) in enumerate(runs):
            orders[k, :size] = torch.randperm(size, generator=generator)
            # One call for the epoch: 64-bit draws come one by one, so the stream is that of `fit`.
            drawn = torch.randint(-(2**63), 2**63 - 1, (steps, n), generator=generator)
            seeds[k, :steps] = drawn.expand(steps, most)
        shuffled = self.examples.gather(1, orders)
        slots = self._positions.shape[2]
        indices = shuffled.gather(1, self._positions.flatten(1)).view(-1, n_steps, slots)
        return indices.transpose(0, 1), seeds.transpose(0, 1)

    def state(self) -> Tensor:
        """What a checkpoint must hold.

        Returns:
            The generators' states, shape (K, bytes).
        """
        return torch.stack([generator.get_state() for generator in self.generators])

    def restore(self, state: Tensor) -> None:
        """Take up a state of `state`.

        Args:
            state: The state.
        """
        for generator, row in zip(self.generators, state, strict=True):
            generator.set_state(row.clone())


def _layout(sizes: Tensor, batch_size: int, blocks: int) -> tuple[Tensor, Tensor]:
    """Lay out the places of an epoch.

    A batch of b examples falls into blocks of ceil(b / blocks) consecutive ones, as in
    `masked_update`; the blocks of a small batch are filled up apart from each other.

    Returns:
        (position in the run's order of each place, shape (K, S, slots); its weight, shape
        (S, K, slots)).
    """
    n_steps = int(-(-sizes.max() // batch_size))
    width = -(-batch_size // blocks)
    starts = torch.arange(n_steps) * batch_size
    present = (sizes[:, None] - starts).clamp(0, batch_size)  # (K, S)
    widths = -(-present // blocks)[..., None, None]
    block, place = torch.arange(blocks)[:, None], torch.arange(width)
    inside = block * widths + place  # (K, S, blocks, width)
    used = ((place < widths) & (inside < present[..., None, None])).flatten(2)
    positions = torch.where(used, inside.flatten(2) + starts[:, None], 0)
    # An empty place repeats the first example of its own batch: where that has no finite loss,
    # the run has diverged anyway.
    first = torch.where(present > 0, starts, 0)[..., None]
    positions = torch.where(used, positions, first)
    weights = used / present.clamp(min=1)[..., None].double()
    return positions, weights.transpose(0, 1).contiguous()
