"""A small vision transformer, made of plain `nn.Linear` layers that adapters can go on."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout.door import check_count


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend.

        Args:
            x: Shape (b, tokens, width).

        Returns:
            Shape (b, tokens, width).
        """

        def split(t: Tensor) -> Tensor:
            return t.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            split(self.query(x)), split(self.key(x)), split(self.value(x))
        )
        return self.output(mixed.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply attention and a two-layer perceptron, each with a residual.

        Args:
            x: Shape (b, tokens, width).

        Returns:
            Shape (b, tokens, width).
        """
        x = x + self.attention(self.norm_1(x))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class VisionTransformer(nn.Module):
    """Classifier of small square grey images.

    Args:
        image_size: Side of the image in pixels.
        patch_size: Side of a patch; it divides the image's.
        width: Token width.
        depth: Number of blocks.
        heads: Attention heads; they divide the width.
        n_classes: Number of classes.

    Raises:
        ValueError: If the patch does not divide the image, or the heads the width.
    """

    def __init__(
        self,
        *,
        image_size: int = 8,
        patch_size: int = 2,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        n_classes: int = 10,
    ) -> None:
        super().__init__()
        sizes = {"image_size": image_size, "patch_size": patch_size, "width": width}
        sizes |= {"heads": heads, "depth": depth, "n_classes": n_classes}
        for name, value in sizes.items():
            check_count(name, value, maximum=10**4)
        if image_size % patch_size:
            raise ValueError(f"patch_size must divide {image_size}, got patch_size={patch_size}")
        if width % heads:
            raise ValueError(f"heads must divide width={width}, got heads={heads}")
        self.patch_size = patch_size
        self.embed = nn.Linear(patch_size**2, width)
        self.position = nn.Parameter(torch.randn((image_size // patch_size) ** 2, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Classify.

        Args:
            images: Shape (b, side, side).

        Returns:
            Logits, shape (b, classes).
        """
        size = self.patch_size
        patches = images.unfold(1, size, size).unfold(2, size, size).flatten(3).flatten(1, 2)
        x = self.embed(patches) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))
