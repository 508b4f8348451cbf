"""TimeRCD: a transformer that classifies every time step against the whole context.

Lan et al., Towards Foundation Models for Zero-Shot Time Series Anomaly Detection: Leveraging
Synthetic Data and Relative Context Discrepancy, arXiv 2509.21190, 2025. Layout and names of the
parameters follow the authors' public code, so that a checkpoint of theirs loads
(`streamad.training.timercd.official`).

Where the configuration of this project departs from the publication (`TimeRCDConfig` has both):

* *Rotary positions* turn each head's vectors, not the whole vector before it is split into heads:
  there most heads get only slow or only fast rotations.
* *Positions count per variate*: patch 3 of every variate stands at 3. Published, they run on over
  the flattened sequence, so that swapping two variates changes the scores.
* *Every variate answers for itself*: it is trained on its own labels, and a time step's score is
  that of its strangest variate. Published, logits are averaged over variates, so that one strange
  variate among twenty must outshout nineteen.
* *Padding* is left out of the loss as well as of attention; the public code counts it as normal.
* *Masked patches stay in attention* with a learned vector in place of their samples; published,
  samples become noise and the patch is hidden from all others, and from itself.
* No dropout: no series of the corpus is ever seen twice.
* The reconstruction head is sized by ``d_reconstruct``: it serves explanations alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRCDConfig:
    """Sizes and variants; the defaults ship with the project, `paper` is the published model.

    d_ff : width of the gated feed-forward block; d_step : values per time step and variate
    rope : ``"head"``, or ``"whole"`` as published; positions : ``"variate"``, or ``"sequence"``
    combine : how variates make one score, ``"max"``, or ``"mean"`` of logits as published
    variate_bias : a learned bias of attention inside a variate and between variates
    learned_mask : whether masked patches are shown as a learned vector
    """

    d_model: int = 128
    n_layers: int = 3
    n_heads: int = 4
    d_ff: int = 512
    d_step: int = 64
    d_reconstruct: int = 128
    patch: int = 16
    dropout: float = 0.0
    rope: Literal["head", "whole"] = "head"
    positions: Literal["variate", "sequence"] = "variate"
    combine: Literal["max", "mean"] = "max"
    variate_bias: bool = True
    learned_mask: bool = True

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together; raises ValueError."""
        if self.d_model % self.n_heads or (self.d_model // self.n_heads) % 2:
            msg = (
                f"d_model must be n_heads times an even number, got d_model = {self.d_model} and "
                f"n_heads = {self.n_heads}"
            )
            raise ValueError(msg)
        sizes = (self.n_layers, self.d_ff, self.d_step, self.d_reconstruct, self.patch)
        if min(self.d_model, *sizes) < 1:
            msg = f"all sizes must be 1 or more, got {self}"
            raise ValueError(msg)


def paper(*, multivariate: bool) -> TimeRCDConfig:
    """Return the published configuration, 37 million parameters."""
    return TimeRCDConfig(
        d_model=512,
        n_layers=8,
        n_heads=8,
        d_ff=2048,
        d_step=256,
        d_reconstruct=1024,
        dropout=0.1,
        rope="whole",
        positions="sequence",
        combine="mean",
        variate_bias=multivariate,
        learned_mask=False,
    )


class _RMSNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        size = x.pow(2).mean(dim=-1, keepdim=True)
        return self.scale * (x * torch.rsqrt(size + 1e-5))


class _VariateBias(nn.Module):
    """One learned value per head for keys of another variate, and one for those of the same."""

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        self.emd = nn.Embedding(2, n_heads)

    def forward(self, same: Tensor) -> Tensor:
        """Return the bias ``(n_heads, L, L)``; ``same (L, L)``: 1 where variates are the same."""
        other, own = self.emd.weight[:, :, None, None]
        bias: Tensor = other + same * (own - other)
        return bias


class _Attention(nn.Module):
    def __init__(self, config: TimeRCDConfig) -> None:
        super().__init__()
        d = config.d_model
        self.n_heads, self.rope = config.n_heads, config.rope
        self.q_proj = nn.Linear(d, d, bias=False)
        self.k_proj = nn.Linear(d, d, bias=False)
        self.v_proj = nn.Linear(d, d, bias=False)
        self.out_proj = nn.Linear(d, d, bias=False)
        self.binary_attention_bias = _VariateBias(config.n_heads) if config.variate_bias else None

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor, same: Tensor) -> Tensor:
        """Attend; ``same (L, L)``: 1 where query and key are of one variate.

        mask : float ``(n, 1, 1, L)``, 0 or minus infinity, added to the logits
        """
        n, length, d = x.shape
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.rope == "whole":
            q, k = _turned(q, *turn), _turned(k, *turn)
        heads = (n, length, self.n_heads, d // self.n_heads)
        q, k, v = (part.reshape(heads).transpose(1, 2) for part in (q, k, v))
        if self.rope == "head":
            q, k = _turned(q, *turn), _turned(k, *turn)
        if self.binary_attention_bias is not None:
            mask = mask + self.binary_attention_bias(same)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        mixed = mixed.transpose(1, 2).reshape(n, length, d)
        out: Tensor = self.out_proj(mixed)
        return out


class _FeedForward(nn.Module):
    def __init__(self, config: TimeRCDConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.d_model, config.d_ff)
        self.up_proj = nn.Linear(config.d_model, config.d_ff)
        self.down_proj = nn.Linear(config.d_ff, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(functional.gelu(self.gate_proj(x)) * self.up_proj(x))
        return out


class _Block(nn.Module):
    def __init__(self, config: TimeRCDConfig) -> None:
        super().__init__()
        self.self_attn = _Attention(config)
        self.input_norm = _RMSNorm(config.d_model)
        self.output_norm = _RMSNorm(config.d_model)
        self.mlp = _FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor, same: Tensor) -> Tensor:
        x = x + self.dropout(self.self_attn(self.input_norm(x), turn, mask, same))
        out: Tensor = x + self.dropout(self.mlp(self.output_norm(x)))
        return out


class TimeRCD(nn.Module):
    """The network; see the module for its source and for what differs.

    Input is cut into patches before: ``patches (n, n_variates, n_patches, patch)``, normalised
    samples, and ``seen (n, n_variates, n_patches)``, 1.0 where a patch holds samples to attend to.
    """

    def __init__(self, config: TimeRCDConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding_layer = nn.Linear(config.patch, config.d_model)
        self.layers = nn.ModuleList([_Block(config) for _ in range(config.n_layers)])
        self.projection_layer = nn.Linear(config.d_model, config.patch * config.d_step)
        self.anomaly_head = nn.Sequential(
            nn.Linear(config.d_step, max(config.d_step // 2, 1)),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(max(config.d_step // 2, 1), 2),
        )
        self.reconstruction_head = nn.Sequential(
            nn.Linear(config.d_step, config.d_reconstruct),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.d_reconstruct, config.d_reconstruct),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.d_reconstruct, 1),
        )
        if config.learned_mask:
            self.mask_token = nn.Parameter(0.02 * torch.randn(config.d_model))

    def forward(self, patches: Tensor, seen: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return values of each time step, ``(n, n_variates, n_patches, patch, d_step)``.

        hidden : ``(n, n_variates, n_patches)``, 1.0 for patches whose samples are not shown (the
            task of the reconstruction); their content in ``patches`` does not matter
        """
        n, n_variates, n_patches, _ = patches.shape
        tokens = self.embedding_layer(patches)
        if hidden is not None and self.config.learned_mask:
            shown = hidden.unsqueeze(-1)
            tokens = tokens * (1.0 - shown) + self.mask_token * shown
        elif hidden is not None:
            noise = 0.1 * torch.randn_like(patches)
            gone = hidden.unsqueeze(-1)
            tokens = self.embedding_layer(patches * (1.0 - gone) + noise * gone)
            seen = seen * (1.0 - hidden)
        tokens = tokens.reshape(n, n_variates * n_patches, self.config.d_model)
        token = torch.arange(n_variates * n_patches, device=patches.device)
        variate = token // n_patches
        same = (variate[:, None] == variate[None, :]).to(tokens.dtype)
        mask = torch.log(seen.reshape(n, 1, 1, n_variates * n_patches))
        # A series without a single patch to attend to would be NaN; it attends to nothing much.
        mask = mask.clamp(min=-1e9)
        turn = self._rotation(token % n_patches if self.config.positions == "variate" else token)
        for block in self.layers:
            tokens = block(tokens, turn, mask, same)
        steps: Tensor = self.projection_layer(tokens)
        return steps.reshape(n, n_variates, n_patches, self.config.patch, self.config.d_step)

    def logits(self, steps: Tensor) -> Tensor:
        """Return ``log odds`` of being anomalous, ``(n, n_variates, n_patches, patch)``."""
        two: Tensor = self.anomaly_head(steps)
        return two[..., 1] - two[..., 0]

    def _rotation(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of the angles of tokens at ``place (L,)``, ``(L, pairs)``."""
        config = self.config
        width = config.d_model if config.rope == "whole" else config.d_model // config.n_heads
        pair = torch.arange(0, width, 2, device=place.device, dtype=torch.float32)
        pace = torch.exp(-math.log(10_000.0) * pair / width)
        angle = place[:, None].to(torch.float32) * pace[None, :]
        return torch.cos(angle), torch.sin(angle)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring pairs of the last axis by each token's angles."""
    pairs = x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2)
    one, other = pairs[..., 0], pairs[..., 1]
    turned = torch.stack([one * cos - other * sin, one * sin + other * cos], dim=-1)
    return turned.reshape(x.shape)


# losses ------------------------------------------------------------------------------------------


def classification_loss(
    logits: Tensor, labels: Tensor, present: Tensor, *, combine: str, weight: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy over time steps, padding left out (section 3.3 of the paper).

    logits, labels : ``(n, n_variates, length)``; present : ``(n, length)``, 0 where padded
    combine : ``"max"``: each variate against its own labels; ``"mean"``: mean logits against any
    weight : what a sample counts for, as ``labels`` (None: each the same)
    """
    if combine == "mean":
        each = functional.binary_cross_entropy_with_logits(
            logits.mean(dim=1), labels.amax(dim=1), reduction="none"
        )
        each = each if weight is None else each * weight.amax(dim=1)
        return (each * present).sum() / present.sum().clamp(min=1.0)
    each = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    each = each if weight is None else each * weight
    counted = present[:, None].expand_as(each)
    return (each * counted).sum() / counted.sum().clamp(min=1.0)


def reconstruction_loss(
    made: Tensor, patches: Tensor, hidden: Tensor, *, robust: float | None = None
) -> Tensor:
    """Return the mean squared error over hidden patches; beyond ``robust`` it grows linearly.

    made, patches : ``(n, n_variates, n_patches, patch)``; hidden : ``(n, n_variates, n_patches)``
    """
    counted = hidden.unsqueeze(-1).expand_as(made)
    if robust is None:
        each = (made - patches) ** 2
    else:
        each = 2.0 * functional.huber_loss(made, patches, reduction="none", delta=robust)
    return (each * counted).sum() / counted.sum().clamp(min=1.0)
