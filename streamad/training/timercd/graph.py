"""TimeRCD as an ONNX graph, written node by node.

The exporter of torch takes half a minute for this network and trips over symbolic shapes; the
graph is short, and a test holds it against the network for every variant. Batch, variates and
patches stay free. Weights are kept in half precision and cast as the session loads.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from streamad.errors import ArtifactError
from streamad.networks.timercd import TimeRCD, TimeRCDConfig

OPSET: Final = 20
IR: Final = 9
"""Versions that every ONNX Runtime from 1.20 on reads."""
LEAST: Final = 1_024
"""Tensors of fewer values stay in single precision: scales and biases cost nothing."""
FREE: Final = ("n_windows", "n_variates", "n_patches")


def build_graph(network: TimeRCD, *, explains: bool) -> onnx.ModelProto:
    """Return the graph that scores, or the one that explains.

    Both read ``patches (n, n_variates, n_patches, patch)`` and ``seen (n, n_variates, n_patches)``.
    The first returns ``log_odds (n, n_variates, n_patches, patch)``; the second also reads
    ``hidden``, shaped as ``seen``, and returns ``expected``, shaped as ``log_odds``.
    """
    return _Builder(network, explains=explains).model()


class _Builder:
    def __init__(self, network: TimeRCD, *, explains: bool) -> None:
        self.config: TimeRCDConfig = network.config
        self.explains = explains
        self.weights = {
            name: value.detach().cpu().numpy().astype(np.float32)
            for name, value in network.state_dict().items()
        }
        self.nodes: list[Any] = []
        self.held: dict[str, Any] = {}

    # small words ---------------------------------------------------------------------------------

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any, dtype: type = np.float32) -> str:
        array: NDArray[Any] = np.asarray(values, dtype=dtype)
        name = f"constant_{len(self.held)}"
        self.held[name] = numpy_helper.from_array(array, name)
        return name

    def whole(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def weight(self, name: str, values: NDArray[np.float32] | None = None) -> str:
        """Keep a weight, once; large ones in half precision."""
        array = self.weights[name] if values is None else values
        if array.size < LEAST:
            return self.constant(array)
        if not np.abs(array).max() <= float(np.finfo(np.float16).max):
            msg = (
                f"weight {name} holds values beyond half precision; the training diverged, "
                "take an earlier checkpoint"
            )
            raise ArtifactError(msg)
        half = self.constant(array, np.float16)
        return self.op("Cast", half, to=TensorProto.FLOAT)

    def linear(self, x: str, name: str, *, bias: bool = True) -> str:
        made = self.op("MatMul", x, self.weight(name, self.weights[f"{name}.weight"].T))
        return self.op("Add", made, self.constant(self.weights[f"{name}.bias"])) if bias else made

    def scaled(self, x: str, by: float) -> str:
        return self.op("Mul", x, self.constant(by))

    # the network ---------------------------------------------------------------------------------

    def model(self) -> onnx.ModelProto:
        config = self.config
        tokens, seen = self._tokens()
        self.n = self.op("Shape", "patches", start=0, end=1)
        tokens = self.op("Reshape", tokens, self._shape(self.n, -1, config.d_model))
        self._places(seen)
        for number in range(config.n_layers):
            tokens = self._block(tokens, f"layers.{number}")
        steps = self.linear(tokens, "projection_layer")
        free = self.op("Shape", "patches", start=0, end=3)
        steps = self.op("Reshape", steps, self._shape(free, config.patch, config.d_step))
        last = self._reconstructed(steps) if self.explains else self._log_odds(steps)
        output = "expected" if self.explains else "log_odds"
        self.nodes.append(helper.make_node("Squeeze", [last, self.whole(-1)], [output]))
        whole: list[str | int | None] = [*FREE, config.patch]
        short: list[str | int | None] = list(FREE)
        inputs = [("patches", whole), ("seen", short)]
        inputs += [("hidden", short)] if self.explains else []
        graph = helper.make_graph(
            self.nodes,
            "timercd",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, whole)],
            list(self.held.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR
        onnx.checker.check_model(model)
        return model

    def _shape(self, first: str, *rest: int) -> str:
        return self.op("Concat", first, self.whole(*rest), axis=0)

    def _tokens(self) -> tuple[str, str]:
        """Return embedded patches and which are attended to; hidden ones become what stands so."""
        if not self.explains:
            return self.linear("patches", "embedding_layer"), "seen"
        gone = self.op("Unsqueeze", "hidden", self.whole(-1))
        shown = self.op("Sub", self.constant(1.0), gone)
        if self.config.learned_mask:
            tokens = self.op("Mul", self.linear("patches", "embedding_layer"), shown)
            token = self.op("Mul", self.constant(self.weights["mask_token"]), gone)
            return self.op("Add", tokens, token), "seen"
        # Noise of mean 0 in training; its mean here, so that explanations do not vary.
        tokens = self.linear(self.op("Mul", "patches", shown), "embedding_layer")
        return tokens, self.op("Mul", "seen", self.op("Sub", self.constant(1.0), "hidden"))

    def _places(self, seen: str) -> None:
        """Make what all blocks share: mask, variates that are the same, rotations."""
        config, zero, one = self.config, self.constant(0, np.int64), self.constant(1, np.int64)
        scalar = self.whole()
        n_variates = self.op("Reshape", self.op("Shape", "patches", start=1, end=2), scalar)
        n_patches = self.op("Reshape", self.op("Shape", "patches", start=2, end=3), scalar)
        n_tokens = self.op("Mul", n_variates, n_patches)
        token = self.op("Range", zero, n_tokens, one)
        variate = self.op("Div", token, n_patches)
        row, column = (self.op("Unsqueeze", variate, self.whole(axis)) for axis in (1, 0))
        equal = self.op("Equal", row, column)
        self.same = self.op("Cast", equal, to=TensorProto.FLOAT)
        flat = self.op("Reshape", seen, self._shape(self.n, 1, 1, -1))
        self.mask = self.op("Max", self.op("Log", flat), self.constant(-1e9))
        place = self.op("Mod", token, n_patches) if config.positions == "variate" else token
        width = config.d_model if config.rope == "whole" else config.d_model // config.n_heads
        pair = np.arange(0, width, 2, dtype=np.float32)
        pace = np.exp(np.float32(-np.log(10_000.0)) * pair / np.float32(width))
        place = self.op("Cast", place, to=TensorProto.FLOAT)
        place = self.op("Unsqueeze", place, self.whole(1, 2))
        angle = self.op("Mul", place, self.constant(pace[None, :, None]))
        self.cos, self.sin = self.op("Cos", angle), self.op("Sin", angle)

    def _turned(self, x: str, *kept: int) -> str:
        """Rotate neighbouring pairs; ``kept`` zeros: axes before the last."""
        pairs = self.op("Reshape", x, self.whole(*kept, -1, 2))
        one, other = (
            self.op("Slice", pairs, self.whole(i), self.whole(i + 1), self.whole(-1))
            for i in range(2)
        )
        first = self.op("Sub", self.op("Mul", one, self.cos), self.op("Mul", other, self.sin))
        second = self.op("Add", self.op("Mul", one, self.sin), self.op("Mul", other, self.cos))
        turned = self.op("Concat", first, second, axis=-1)
        width = self.config.d_model
        width = width if len(kept) == 2 else width // self.config.n_heads
        return self.op("Reshape", turned, self.whole(*kept, width))

    def _norm(self, x: str, name: str) -> str:
        size = self.op("ReduceMean", self.op("Mul", x, x), self.whole(-1))
        root = self.op("Sqrt", self.op("Add", size, self.constant(1e-5)))
        return self.op("Mul", self.op("Div", x, root), self.constant(self.weights[f"{name}.scale"]))

    def _block(self, x: str, name: str) -> str:
        attended = self._attention(self._norm(x, f"{name}.input_norm"), f"{name}.self_attn")
        x = self.op("Add", x, attended)
        inner = self._norm(x, f"{name}.output_norm")
        gate = self.op("Gelu", self.linear(inner, f"{name}.mlp.gate_proj"))
        both = self.op("Mul", gate, self.linear(inner, f"{name}.mlp.up_proj"))
        return self.op("Add", x, self.linear(both, f"{name}.mlp.down_proj"))

    def _attention(self, x: str, name: str) -> str:
        config = self.config
        width = config.d_model // config.n_heads
        q, k, v = (self.linear(x, f"{name}.{part}_proj", bias=False) for part in "qkv")
        if config.rope == "whole":
            q, k = self._turned(q, 0, 0), self._turned(k, 0, 0)
        split = self.whole(0, 0, config.n_heads, width)
        q, k, v = (
            self.op("Transpose", self.op("Reshape", part, split), perm=[0, 2, 1, 3])
            for part in (q, k, v)
        )
        if config.rope == "head":
            q, k = self._turned(q, 0, 0, 0), self._turned(k, 0, 0, 0)
        logits = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2]))
        logits = self.op("Add", self.scaled(logits, width**-0.5), self.mask)
        if config.variate_bias:
            other, own = self.weights[f"{name}.binary_attention_bias.emd.weight"][:, :, None, None]
            gain = self.op("Mul", self.same, self.constant(own - other))
            logits = self.op("Add", logits, self.op("Add", gain, self.constant(other)))
        mixed = self.op("MatMul", self.op("Softmax", logits, axis=-1), v)
        mixed = self.op("Transpose", mixed, perm=[0, 2, 1, 3])
        mixed = self.op("Reshape", mixed, self.whole(0, 0, config.d_model))
        return self.linear(mixed, f"{name}.out_proj", bias=False)

    def _log_odds(self, steps: str) -> str:
        """Return the second logit less the first, which is one linear map."""
        inner = self.op("Gelu", self.linear(steps, "anomaly_head.0"))
        weight, bias = self.weights["anomaly_head.3.weight"], self.weights["anomaly_head.3.bias"]
        made = self.op("MatMul", inner, self.constant((weight[1] - weight[0])[:, None]))
        return self.op("Add", made, self.constant(bias[1:] - bias[:1]))

    def _reconstructed(self, steps: str) -> str:
        inner = self.op("Gelu", self.linear(steps, "reconstruction_head.0"))
        inner = self.op("Gelu", self.linear(inner, "reconstruction_head.3"))
        return self.linear(inner, "reconstruction_head.6")
