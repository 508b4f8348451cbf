"""The encoder half of Chronos-Bolt as a module of its own, so that it can be exported alone."""

from __future__ import annotations

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
