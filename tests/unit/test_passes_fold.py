"""Folding batch norms, chains of convolutions and constant scales: closed formulas, exactness, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Net, flips, named, random_images

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Node
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.verify import verify
from nmc_compiler.passes.base import stored
from nmc_compiler.passes.fold_batch_norm import FoldBatchNorm
from nmc_compiler.passes.fold_convs import FoldConvs
from nmc_compiler.passes.fold_scale import FoldScale
from nmc_compiler.passes.report import ConversionReport


def run(graph: Graph, *passes) -> Graph:
    for step in passes:
        graph = step.apply(graph, ConversionReport())
        verify(graph)
    return graph


def spikes(timesteps: int = 2, seed: int = 0, channels: int = 3, size: int = 6) -> tuple[Net, str]:
    """A net whose first population fires at random."""
    net = Net(timesteps, seed)
    x = net.input(2, size, size)
    return net, net.lif(net.conv(x, channels, 3, pad=1), "first", theta=0.4)


def currents(graph: Graph, node: str, seed: int = 0) -> np.ndarray:
    return interpret(graph, random_images(graph, seed), values=[node]).values[node]


def current_of(graph: Graph, neuron: str) -> Node:
    return graph.node(named(graph, neuron).operands[0])


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph]


# --- batch norm ---------------------------------------------------------------------------------------------


def test_a_batch_norm_becomes_weight_and_bias() -> None:
    net, s = spikes()
    y = net.norm(net.conv(s, 4, 3, bias=[0.5, -1.0, 0.25, 2.0], pad=1))
    before = net.readout(net.lif(y, "last"))
    after = run(before, FoldBatchNorm())
    bn, conv = before.node(y), before.node(before.node(y).operands[0])
    gamma, beta, mean, var = (before.tensor(bn, k) for k in ("weight", "bias", "mean", "var"))
    s = gamma / np.sqrt(var + 1e-5)
    folded = after.node(conv.id)
    np.testing.assert_allclose(after.tensor(folded, "weight"), before.tensor(conv, "weight") * s[:, None, None, None])
    np.testing.assert_allclose(after.tensor(folded, "bias"), s * (before.tensor(conv, "bias") - mean) + beta)
    assert "batch_norm" not in ops(after)
    assert flips(before, after, random_images(before, 1, 20)) == 0


def test_a_batch_norm_behind_a_batch_norm_folds_too() -> None:
    net, s = spikes()
    before = net.readout(net.lif(net.norm(net.norm(net.norm(net.conv(s, 4, 3, pad=1)))), "last"))
    after = run(before, FoldBatchNorm())
    assert ops(after).count("batch_norm") == 0
    assert flips(before, after, random_images(before, 1, 20)) == 0


@pytest.mark.parametrize("factors", [[1 / 16], [0.5, 0.25], [np.array([0.5, 1.5, 2.0, 0.25])]])
def test_a_batch_norm_behind_a_factor_folds_with_it(factors: list) -> None:
    """As behind a mean of tokens, or LayerScale; the factor multiplies the convolution's bias, not the norm's."""
    net, s = spikes()
    y = net.conv(s, 4, 3, bias=[0.5, -1.0, 0.25, 2.0], pad=1)
    for factor in factors:
        y = net.add("scale", y, factor=net.array(factor) if isinstance(factor, np.ndarray) else factor)
    y = net.norm(y)
    before = net.readout(net.lif(y, "last"))
    after = run(before, FoldBatchNorm())
    assert "batch_norm" not in ops(after) and ops(after).count("scale") == 1  # of the readout's mean
    np.testing.assert_allclose(currents(after, current_of(after, "last").id), currents(before, y), atol=1e-12)


def test_convolutions_of_one_name_and_one_weight_keep_their_own_batch_norms() -> None:
    """A module that is called twice gives two nodes with the same name and tensors."""
    net, s = spikes()
    weight = net.array(np.random.default_rng(0).normal(size=(4, 3, 1, 1)))
    for k in range(2):
        y = net.add("conv2d", s, weight=weight, name="shared")
        s2 = net.lif(net.norm(y), f"reader{k}", theta=0.2)
        s = net.lif(net.conv(s2, 3), f"next{k}", theta=0.2)
    before = net.readout(s)
    assert flips(before, run(before, FoldBatchNorm()), random_images(before, 1, 20)) == 0


def test_a_batch_norm_after_something_else_is_refused() -> None:
    net, s = spikes()
    y = net.conv(s, 3)
    graph = net.readout(net.lif(net.norm(net.sum(y, y)), "last"))
    with pytest.raises(LoweringError) as error:
        run(graph, FoldBatchNorm())
    assert str(error.value) == (
        "batch norm '%batch_norm5' follows add '%add4' with 1 reader(s); "
        "it can be folded only into a convolution that nothing else reads"
    )


def test_a_batch_norm_of_a_convolution_that_is_read_elsewhere_is_refused() -> None:
    net, s = spikes()
    y = net.conv(s, 3)
    net.lif(y, "beside")
    graph = net.readout(net.lif(net.norm(y), "last"))
    with pytest.raises(LoweringError, match=r"follows conv2d '%conv2d3' with 2 reader\(s\)"):
        run(graph, FoldBatchNorm())


# --- chains of convolutions ---------------------------------------------------------------------------------


def test_repconv_is_one_convolution_up_to_the_border() -> None:
    """models.md section 6: the ring of BN(0) makes plain zero padding exact."""
    net, s = spikes(size=5)
    before = net.readout(net.lif(net.repconv(s, 4), "last"))
    after = run(before, FoldBatchNorm(), FoldConvs())
    [y] = [n for n in after if n.op == "conv2d" and n.id == current_of(after, "last").id]
    assert after.tensor(y, "weight").shape == (4, 3, 3, 3) and y.attr("pad") == (1, 1) and y.attr("groups") == 1
    want = currents(before, named(before, "last").operands[0])
    assert np.abs(want[..., 0, 0]).max() > 0.1
    np.testing.assert_allclose(currents(after, y.id), want, rtol=0, atol=1e-12)


def test_the_weights_of_repconv_are_the_published_product() -> None:
    """W[o,i] = s2 s3 sum_m pw[o,m] dw[m] s1[m] w1[m,i]; b = (sum_m pw t1 sum(dw) s2 + t2) s3 + t3."""
    net, s = spikes()
    before = net.readout(net.lif(net.repconv(s, 4), "last"))
    after = run(before, FoldBatchNorm(), FoldConvs())
    w1, dw, pw = (
        before.tensor(n, "weight") for n in before if n.op == "conv2d" and n.id not in ("conv2d1", "conv2d11")
    )
    affine = []
    for bn in (n for n in before if n.op == "batch_norm"):
        gamma, beta, mean, var = (before.tensor(bn, k) for k in ("weight", "bias", "mean", "var"))
        scale = gamma / np.sqrt(var + 1e-5)
        affine.append((scale, beta - mean * scale))
    (s1, t1), (s2, t2), (s3, t3) = affine
    outer = (s2 * s3)[:, None] * pw[:, :, 0, 0]
    weight = np.einsum("om,mkl,m,mi->oikl", outer, dw[:, 0], s1, w1[:, :, 0, 0])
    bias = (pw[:, :, 0, 0] @ (t1 * dw.sum(axis=(1, 2, 3))) * s2 + t2) * s3 + t3
    y = current_of(after, "last")
    np.testing.assert_allclose(after.tensor(y, "weight"), weight, atol=1e-14)
    np.testing.assert_allclose(after.tensor(y, "bias"), bias, atol=1e-14)


@pytest.mark.parametrize("first", [{"kernel": 7, "pad": 3, "groups": 3}, {"kernel": 3, "stride": 2, "dilation": 2}])
def test_a_wide_convolution_and_a_1x1_behind_it_become_one(first: dict) -> None:
    """SepConv: dw7x7 and pw without a norm between; the first one's geometry stays."""
    net, s = spikes(size=8)
    y = net.conv(net.conv(s, 3, bias=[0.1, -0.2, 0.3], **first), 5, bias=0.25)
    before = net.readout(net.lif(y, "last"))
    after = run(before, FoldConvs())
    assert ops(after).count("conv2d") == ops(before).count("conv2d") - 1
    np.testing.assert_allclose(currents(after, y), currents(before, y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("second", [{"kernel": (3, 2), "stride": (2, 1)}, {"kernel": 3, "groups": 2, "pad": 1}])
def test_a_1x1_and_a_wide_convolution_behind_it_become_one(second: dict) -> None:
    net, s = spikes(channels=4)
    y = net.conv(net.conv(s, 4, groups=2), 6, bias=0.25, **second)
    before = net.readout(net.lif(y, "last"))
    after = run(before, FoldConvs())
    np.testing.assert_allclose(currents(after, y), currents(before, y), rtol=0, atol=1e-12)


def test_three_convolutions_behind_the_real_input_become_one() -> None:
    net = Net(1)
    y = net.conv(net.conv(net.conv(net.input(2, 5, 5), 3), 4, 3, pad=1), 2)
    before = net.readout(net.lif(y, "last"))
    after = run(before, FoldConvs())
    assert ops(after) == ["input", "conv2d", "lif", "conv2d", "sum_positions", "scale", "readout"]
    np.testing.assert_allclose(currents(after, y), currents(before, y), rtol=0, atol=1e-12)


def ring(value: float, kernel: int = 1, pad: int = 0, reader: str = "conv") -> Graph:
    """conv -> pad2d with one value -> conv or neuron."""
    net, s = spikes()
    y = net.add("pad2d", net.conv(s, 3, kernel, bias=0.5), pad=(1, 1), value=net.array(value, 3))
    return net.readout(net.lif(net.conv(y, 3, 3, pad=pad) if reader == "conv" else y, "last"))


def two_wide() -> Graph:
    net, s = spikes()
    return net.readout(net.lif(net.conv(net.conv(s, 3, 3), 3, 3), "last"))


def padded_bias() -> Graph:
    net, s = spikes()
    return net.readout(net.lif(net.conv(net.conv(s, 3, bias=0.5), 3, 3, pad=1), "last"))


def pooled_between() -> Graph:
    net, s = spikes()
    return net.readout(net.lif(net.conv(net.pool(net.conv(s, 3)), 3), "last"))


def read_twice() -> Graph:
    net, s = spikes()
    y = net.conv(s, 3)
    net.lif(y, "beside")
    return net.readout(net.lif(net.conv(y, 3), "last"))


REFUSED_CHAINS = {
    "pad '%pad2d4' is not what '%conv2d3' gives for zero input; not folded": ring(0.4),
    "pad '%pad2d4' must stand between a 1x1 convolution and one other convolution": ring(0.5, kernel=2),
    "'%conv2d5' pads '%pad2d4', which is a pad itself, with zeros; not folded": ring(0.5, pad=1),
    "'%conv2d3' and '%conv2d4' are both wider than 1x1 with no spikes between; not folded": two_wide(),
    "'%conv2d4' pads the biased output of '%conv2d3' with zeros: at the border the fold would not be exact": (
        padded_bias()
    ),
    "convolution '%conv2d5' reads the real-valued output of maxpool2d '%maxpool2d4': not event-driven, and only a "
    "convolution read by nothing else can be folded": pooled_between(),
    "convolution '%conv2d5' reads the real-valued output of conv2d '%conv2d3': not event-driven, and only a "
    "convolution read by nothing else can be folded": read_twice(),
}


@pytest.mark.parametrize("text", REFUSED_CHAINS)
def test_a_chain_that_is_not_one_convolution_is_refused(text: str) -> None:
    with pytest.raises(LoweringError) as error:
        run(REFUSED_CHAINS[text], FoldConvs())
    assert str(error.value) == text


def test_a_pad_before_a_neuron_is_refused() -> None:
    with pytest.raises(LoweringError, match="must stand between a 1x1 convolution and one other convolution"):
        run(ring(0.5, reader="neuron"), FoldConvs())


def test_the_fold_does_not_change_what_is_exact_already() -> None:
    graph = Net(1)
    graph = graph.readout(graph.lif(graph.conv(graph.input(1, 3, 3), 2), "a"))
    assert run(graph, FoldBatchNorm(), FoldConvs()) == graph


# --- constant scales ----------------------------------------------------------------------------------------


def test_layer_scale_becomes_weight_and_bias() -> None:
    net, s = spikes()
    y = net.conv(s, 3, 3, bias=[1.0, 2.0, 3.0], pad=1)
    factor = np.array([0.5, 2.0, -1.0])
    before = net.readout(net.lif(net.add("scale", y, factor=net.array(factor)), "last"))
    after = run(before, FoldScale())
    weight = before.tensor(before.node(y), "weight") * factor[:, None, None, None]
    np.testing.assert_array_equal(after.tensor(after.node(y), "weight"), weight)
    np.testing.assert_array_equal(after.tensor(after.node(y), "bias"), [0.5, 4.0, -3.0])
    assert flips(before, after, random_images(before, 1, 20)) == 0


def test_two_scales_multiply() -> None:
    net, s = spikes()
    y = net.add("scale", net.add("scale", net.conv(s, 3, bias=1.0), factor=3), factor=net.array([1.0, 2.0, 3.0]))
    before = net.readout(net.lif(y, "last"))
    after = run(before, FoldScale())
    np.testing.assert_allclose(after.tensor(current_of(after, "last"), "bias"), [3, 6, 9])
    assert flips(before, after, random_images(before, 1, 20)) == 0


def test_a_scale_of_attention_becomes_its_scale() -> None:
    net, s = spikes()
    y = net.add("scale", net.attn(s, s, s, scale=0.5), factor=0.25)
    before = net.readout(net.lif(y, "last"))
    after = run(before, FoldScale())
    assert current_of(after, "last").attr("scale") == 0.125
    assert flips(before, after, random_images(before, 1, 20)) == 0


def test_a_scale_of_a_sum_becomes_the_gain_of_every_neuron_that_reads_it() -> None:
    net, s = spikes()
    y = net.add("scale", net.sum(net.conv(s, 3), net.conv(s, 3)), factor=0.5)
    net.lif(y, "a", gain=4.0)
    last = net.levels(y, "b", bias=net.array([0.5, -0.5, 1.0]))
    before = net.readout(net.sum(net.conv(last, 3), net.conv("lif7", 3)))
    after = run(before, FoldScale())
    assert named(after, "a").attr("gain") == 2.0 and named(after, "b").attr("gain") == 0.5
    np.testing.assert_array_equal(after.tensor(named(after, "b"), "bias"), [1.0, -1.0, 2.0])
    assert flips(before, after, random_images(before, 1, 20)) == 0


def scaled(factor, tensor: bool = False, reader: str = "lif") -> Graph:
    net, s = spikes()
    y = net.add("scale", net.sum(net.conv(s, 3), net.conv(s, 3)), factor=net.array(factor, 3) if tensor else factor)
    return net.readout(net.lif(net.sum(y, net.conv(s, 3)) if reader == "add" else y, "last"))


@pytest.mark.parametrize(
    ("graph", "text"),
    [
        (scaled(0.5, tensor=True), "scale '%scale6' after add '%add5' feeds lif 'last': cannot be folded"),
        (scaled(0.5, reader="add"), "scale '%scale6' after add '%add5' feeds add '%add8': cannot be folded"),
        (scaled(0.0), "neuron 'last' reads a current times 0: it hears nothing; remove it"),
    ],
)
def test_a_scale_with_nothing_to_fold_into_is_refused(graph: Graph, text: str) -> None:
    with pytest.raises(LoweringError) as error:
        run(graph, FoldScale())
    assert str(error.value) == text


# --- tensor keys --------------------------------------------------------------------------------------------


def test_a_new_tensor_never_takes_the_place_of_another() -> None:
    tensors = {"w": np.zeros(1), "w#2": np.ones(1)}
    ref = stored(tensors, "w", np.full(1, 7.0))
    assert ref.value.key == "w#3" and {k: float(v[0]) for k, v in tensors.items()} == {"w": 0, "w#2": 1, "w#3": 7}
