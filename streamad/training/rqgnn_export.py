"""Export a trained RQGNN as arrays that are served without torch."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from streamad.graphs.inputs import InputPlan
from streamad.networks.rqgnn import RQGNN

Floats = NDArray[np.float32]


@torch.no_grad()
def export_arrays(network: RQGNN, plan: InputPlan) -> dict[str, Floats]:
    """Return the network as float32 arrays for `streamad.graphs.network_kernels`.

    What is linear is folded, in float64: filters and `mix` become one matrix, both layers of the
    quotient branch one, batch normalisation, head and the difference of logits one vector. A node's
    features are one of ``n_codes`` kinds, so the node layers become a table.
    """
    net = RQGNN(network.shape).double().eval()
    net.load_state_dict({name: v.double() for name, v in network.state_dict().items()})
    codes = np.arange(plan.n_codes, dtype=np.int32)
    mix, mix_bias = net.folded()
    first, second = (cast("nn.Linear", one) for one in net.quotient)
    into, out = cast("nn.Linear", net.pool[0]), cast("nn.Linear", net.pool[2])
    mean, variance = (
        cast("torch.Tensor", v) for v in (net.norm.running_mean, net.norm.running_var)
    )
    scale = net.norm.weight / torch.sqrt(variance + net.norm.eps)
    head = net.head.weight[1] - net.head.weight[0]
    offset = net.norm.bias - mean * scale
    made = {
        "table": net.node(torch.from_numpy(plan.features(codes))),
        "mix": mix,
        "mix_bias": mix_bias,
        "embed": net.embed.weight.T,
        "embed_bias": net.embed.bias,
        "pool": into.weight.T,
        "pool_bias": into.bias,
        "pool_out": out.weight.T,
        "pool_out_bias": out.bias,
        "branch": first.weight.T @ second.weight.T,
        "branch_bias": second(first.bias),
        "head": head * scale,
        "head_bias": (head @ offset + net.head.bias[1] - net.head.bias[0])[None],
    }
    return {name: np.ascontiguousarray(v.numpy().astype(np.float32)) for name, v in made.items()}
