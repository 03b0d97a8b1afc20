"""Handwritten digits: pretraining on upright scans, fine-tuning on a few shifted ones.

The data are the 1797 real 8x8 scans that scikit-learn ships (UCI, "Optical Recognition of
Handwritten Digits", test part). Three disjoint parts: `source` to pretrain on, `pool` to draw small
target sets from, `test` to measure on. The shift turns the target images by a quarter.
"""

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from lora_dropout.door import MOST, check_count, check_type
from lora_dropout.seeds import TORCH_BITS, check_seed
from lora_dropout.tasks.vit import VisionTransformer
from lora_dropout.threads import fixed_threads

Pair = tuple[Tensor, Tensor]

_SOURCE, _TEST = 700, 500
_SPLIT_SEED = 0


@dataclass(frozen=True)
class DigitsTarget:
    """A small target task; images of shape (n, 8, 8) in [0, 1], labels of shape (n,).

    Attributes:
        train: Few examples to fine-tune on.
        validation: Others, to choose settings by.
        test: 500 others that neither pretraining nor any `train` or `validation` ever contains.
    """

    train: Pair
    validation: Pair
    test: Pair


def digits_source() -> Pair:
    """The upright scans for pretraining.

    Returns:
        (images (700, 8, 8), labels (700,)).
    """
    source, _, _ = _parts()
    return source


def digits_target(*, seed: int, n_train: int = 64, n_validation: int = 100) -> DigitsTarget:
    """Draw a small target task.

    Args:
        seed: Seed of the draw; `test` is the same for all seeds.
        n_train: Training examples, drawn so that classes are balanced as in the pool.
        n_validation: Validation examples.

    Returns:
        The task.

    Raises:
        ValueError: If the pool of 597 images is too small.
    """
    check_seed("seed", seed, maximum=TORCH_BITS)
    check_count("n_train", n_train, minimum=10)
    check_count("n_validation", n_validation, minimum=10)
    _, (images, labels), test = _parts()
    if n_train + n_validation > len(labels):
        raise ValueError(
            f"n_train + n_validation must be at most {len(labels)}, got {n_train} + {n_validation}"
        )
    rest, train = _split(images, labels, n_train, seed)
    _, validation = _split(*rest, n_validation, seed) if len(rest[1]) > n_validation else (0, rest)
    return DigitsTarget(*((_shift(x), y) for x, y in (train, validation, test)))


def digits_pool() -> tuple[Pair, Pair]:
    """The shifted scans that target sets are drawn from, and those to test on.

    Returns:
        ((images (597, 8, 8), labels (597,)), (images (500, 8, 8), labels (500,))).
    """
    _, (images, labels), (test_images, test_labels) = _parts()
    return (_shift(images), labels), (_shift(test_images), test_labels)


def pretrain_digits(*, seed: int = 0, epochs: int = 40, progress: bool = True) -> VisionTransformer:
    """Pretrain the small transformer on the upright scans.

    Args:
        seed: Seed of weights and data order.
        epochs: Passes over the 700 images.
        progress: Whether to show a progress bar.

    Returns:
        The trained model, in eval mode; the same bits whatever the number of threads.
    """
    check_seed("seed", seed, maximum=TORCH_BITS)
    check_count("epochs", epochs, maximum=MOST)
    check_type("progress", progress, bool, "a bool")
    images, labels = digits_source()
    with torch.random.fork_rng(devices=[]), fixed_threads():
        torch.manual_seed(seed)
        model = VisionTransformer()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True)
        steps = epochs * -(-len(labels) // 64)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
        for _ in tqdm(range(epochs), unit="epoch", disable=not progress, leave=False):
            for batch in torch.randperm(len(labels)).split(64):
                optimizer.zero_grad()
                F.cross_entropy(model(images[batch]), labels[batch]).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
    return model.eval()


def _parts() -> tuple[Pair, Pair, Pair]:
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32) / 16.0
    labels = torch.tensor(data.target, dtype=torch.int64)
    rest, source = _split(images, labels, _SOURCE, _SPLIT_SEED)
    pool, test = _split(*rest, _TEST, _SPLIT_SEED)
    return source, pool, test


def _split(images: Tensor, labels: Tensor, size: int, seed: int) -> tuple[Pair, Pair]:
    rest, taken = train_test_split(
        range(len(labels)), test_size=size, random_state=seed, stratify=labels.numpy()
    )
    return (images[rest], labels[rest]), (images[taken], labels[taken])


def _shift(images: Tensor) -> Tensor:
    return images.rot90(1, dims=(1, 2)).contiguous()
