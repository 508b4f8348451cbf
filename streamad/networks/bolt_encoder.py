"""The encoder half of Chronos-Bolt, whole and shallow, as modules that can be exported alone."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from chronos.chronos_bolt import ChronosBoltModelForForecasting


class _Stack(Protocol):
    def __call__(self, *, attention_mask: Tensor, inputs_embeds: Tensor) -> tuple[Tensor, ...]: ...


class BoltEncoder(nn.Module):
    """Embed scaled patches; normalising and cutting into patches happen before, in numpy.

    Source: ``ChronosBoltModelForForecasting.encode`` (chronos-forecasting, Apache-2.0), minus its
    instance normalisation and patching: ``nanmean`` does not export, and a detector wants to
    choose the scale itself.
    """

    def __init__(self, model: ChronosBoltModelForForecasting) -> None:
        super().__init__()
        self.patch_embedding = model.input_patch_embedding
        self.stack = model.encoder
        self.shared = model.shared
        self.reg_token_id = int(model.config.reg_token_id)

    def forward(self, patches: Tensor) -> Tensor:
        """Return one vector a patch and one for the window.

        ``patches`` : float32 ``(n_windows, n_patches, 2 * patch_size)``, scaled values (0 where
        missing) followed by the mask (1 = observed). Returns ``(n_windows, n_patches + 1, d)``.
        """
        patch_size = patches.shape[-1] // 2
        observed = patches[..., patch_size:].sum(dim=-1) > 0
        embedded = self.patch_embedding(patches)
        reg = self.shared.weight[self.reg_token_id].expand(patches.shape[0], 1, -1)
        mask = torch.cat([observed.to(patches.dtype), torch.ones_like(reg[..., 0])], dim=-1)
        stack = cast("_Stack", self.stack)
        return stack(attention_mask=mask, inputs_embeds=torch.cat([embedded, reg], dim=-2))[0]


class BoltFeatures(nn.Module):
    """Short whitened vectors of the patches, from the encoder's first blocks.

    For telling the usual from the strange the first block's output serves better than the last's,
    which has turned to what comes next; and distances count only once its directions are whitened.
    """

    def __init__(
        self, model: ChronosBoltModelForForecasting, *, centre: Tensor, axes: Tensor, n_blocks: int
    ) -> None:
        super().__init__()
        self.encoder = first_blocks(model, n_blocks=n_blocks)
        self.register_buffer("centre", centre)
        self.register_buffer("axes", axes)

    def forward(self, patches: Tensor) -> Tensor:
        """Return one vector a patch, ``(n_windows, n_patches, width)``; input as `BoltEncoder`."""
        hidden = self.encoder(patches)[:, :-1]
        return cast("Tensor", (hidden - self.centre) @ self.axes)


def first_blocks(model: ChronosBoltModelForForecasting, *, n_blocks: int) -> BoltEncoder:
    """Return an encoder that ends after ``n_blocks`` blocks, before the final norm."""
    encoder = copy.deepcopy(BoltEncoder(model))
    stack = cast("nn.Module", encoder.stack)
    stack.block = cast("nn.ModuleList", stack.block)[:n_blocks]
    stack.final_layer_norm = nn.Identity()
    return encoder.eval()
