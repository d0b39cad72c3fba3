"""prune_channels: what shrinks together, what stays and why, and that nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
from channel_models import Flattened, Transformer, image_model, image_models
from torch import nn

import fastinfer
from fastinfer.compress.prune.channels import channel_report, prune_channels

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
TOKENS = torch.randint(0, 40, (2, 12), generator=torch.Generator().manual_seed(4))


def seeded(make, *args, **options):
    torch.manual_seed(11)
    return make(*args, **options).eval()


def halved(model, example, **options):
    options = {"sparsity": 0.5, "allocation": "uniform", "importance": "magnitude", **options}
    return prune_channels(model, example, **options)


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(7)
    return image_models()


@pytest.mark.parametrize("name", list(image_models()))
def test_structures(models, name):
    model, shrink, stay = models[name]
    before = state(model)
    pruned = halved(model, IMAGE)
    assert type(pruned) is type(model)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert pruned(IMAGE).shape == model(IMAGE).shape
    for layer in shrink:
        old, new = (m.get_submodule(layer) for m in (model, pruned))
        assert rows(new) == rows(old) // 2, layer
    for layer in stay:
        assert rows(pruned.get_submodule(layer)) == rows(model.get_submodule(layer)), layer
    for module in pruned.modules():
        agrees_with_its_tensors(module)
    report = channel_report(pruned)
    assert report.parameters[1] == sum(p.numel() for p in pruned.parameters())
    assert report.parameters[0] == sum(p.numel() for p in model.parameters())
    stays = {refusal.name: refusal.reason for refusal in report.refused}
    assert set(stay) <= set(stays)
    assert "4" in stays and stays["4"] == "the model's output"


def rows(layer):
    return layer.out_channels if isinstance(layer, nn.modules.conv._ConvNd) else layer.out_features


def agrees_with_its_tensors(module):
    if isinstance(module, nn.ConvTranspose2d):
        assert module.weight.shape[:2] == (module.in_channels, module.out_channels)
    elif isinstance(module, nn.Conv2d):
        expected = (module.out_channels, module.in_channels // module.groups)
        assert module.weight.shape[:2] == expected and module.in_channels % module.groups == 0
    elif isinstance(module, nn.Linear):
        assert module.weight.shape == (module.out_features, module.in_features)
    elif isinstance(module, nn.BatchNorm2d):
        assert len(module.running_var) == len(module.weight) == module.num_features
    elif isinstance(module, nn.GroupNorm):
        assert len(module.weight) == module.num_channels
        assert module.num_channels % module.num_groups == 0
    elif isinstance(module, nn.LayerNorm):
        assert module.weight.shape == module.normalized_shape
    elif isinstance(module, nn.Embedding):
        assert module.weight.shape == (module.num_embeddings, module.embedding_dim)


def test_the_result_is_the_dense_model_without_those_channels(models):
    """Counted by hand for a chain: the next layer's columns at zero are the same model."""
    model = models["chain"][0]
    pruned = halved(model, IMAGE, scope="mid", ignore=["0*"])
    kept = channels_of(model[1][0][0].weight, pruned[1][0][0].weight)
    assert len(kept) == 32 and model[0][0].out_channels == pruned[0][0].out_channels
    reference = copy.deepcopy(model)
    gone = [c for c in range(64) if c not in kept]
    kept_out = channels_of(model[1][1][0].weight[:, kept], pruned[1][1][0].weight)
    with torch.no_grad():
        reference[1][1][0].weight[:, gone] = 0
        lost = [c for c in range(32) if c not in kept_out]
        reference[4].weight[:, lost] = 0
    # Sums of at most 64 x 9 terms in another order, in three layers.
    bound = (
        2
        * 3
        * 64
        * 9
        * torch.finfo(torch.float32).eps
        * float(reference(IMAGE).detach().abs().max())
    )
    assert float((pruned(IMAGE) - reference(IMAGE)).abs().max()) <= bound


def channels_of(dense, small):
    """Return which rows of the dense weight the small one has, the order kept."""
    return [i for i, row in enumerate(dense) if any(torch.equal(row, mine) for mine in small)]


def test_flattened_positions_go_with_their_channel():
    model = seeded(Flattened)
    with torch.no_grad():
        model.features[2][1].bias.normal_()
    pruned = halved(model, IMAGE)
    assert pruned.features[2][0].out_channels == 16
    assert pruned.hidden.weight.shape == (32, 16 * 16)
    # Which channels stayed, by their norm's bias; their 16 positions are neighbours.
    biases = model.features[2][1].bias, pruned.features[2][1].bias
    kept = [int((biases[0] == value).nonzero()) for value in biases[1]]
    assert len(set(kept)) == 16
    columns = model.hidden.weight.view(64, 32, 16)[:, kept].flatten(1)
    assert len(channels_of(columns, pruned.hidden.weight)) == 32


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("manual", [False, True])
def test_heads_go_whole(fused, manual):
    model = seeded(Transformer, fused=fused, manual=manual)
    pruned = halved(model, TOKENS, scope="mid")
    attention = pruned.attention
    assert (attention.heads, attention.head_dim) == (4, 8) and model.attention.heads == 8
    assert attention.inputs[-1].out_features == (96 if fused else 32)
    assert attention.output.weight.shape == (64, 32)
    assert pruned.mlp[0].out_features == 64
    rows = {group.name: group for group in channel_report(pruned).groups}
    heads = rows["attention.inputs.0"]
    assert (heads.channels, heads.kept, heads.width) == (8, 4, 8)
    assert any("scope='mid'" in r.reason for r in channel_report(pruned).refused)


def test_a_stream_with_norms_says_that_outputs_change():
    pruned = halved(seeded(Transformer), TOKENS)
    assert pruned.table.embedding_dim == 32 and pruned.places.shape == (1, 12, 32)
    assert pruned.norms[0].normalized_shape == (32,)
    assert any("statistics of fewer channels" in note for note in channel_report(pruned).notes)


def test_tied_weights_stay_tied():
    pruned = halved(seeded(Transformer, tied=True), TOKENS)
    assert pruned.head.weight is pruned.table.weight and pruned.table.weight.shape == (40, 32)
    assert pruned.head.in_features == 32


def test_code_with_numbers_is_refused_with_the_error(models):
    reasons = {
        r.name: r.reason for r in channel_report(halved(models["hard-coded"][0], IMAGE)).refused
    }
    assert "the pruned copy fails" in reasons["1.a"] and "32, 2" in reasons["1.a"]
    reasons = {
        r.name: r.reason for r in channel_report(halved(models["softmax"][0], IMAGE)).refused
    }
    assert "softmax" in reasons["1.a.0"]
    unknown = channel_report(halved(models["unknown operator"][0], IMAGE)).refused
    assert any("no rule for the operator cummax" in refusal.reason for refusal in unknown)


def test_global_reaches_its_share_of_parameters(models):
    model = models["residual"][0]
    total = sum(p.numel() for p in model.parameters())
    for sparsity in (0.0, 0.2, 0.45):
        pruned = prune_channels(model, IMAGE, sparsity=sparsity, importance="taylor")
        left = sum(p.numel() for p in pruned.parameters())
        assert left <= (1 - sparsity) * total
        assert sparsity or left == total
        assert all((g.kept * g.width) % 16 == 0 for g in channel_report(pruned).groups)
    with pytest.raises(ValueError, match=r"sparsity: 0\.95 of the parameters cannot go.*at most"):
        prune_channels(model, IMAGE, sparsity=0.95)


@pytest.mark.parametrize("importance", ["taylor", "magnitude"])
def test_dead_channels_go_first(models, importance):
    model = copy.deepcopy(models["chain"][0])
    dead = list(range(0, 64, 2))
    with torch.no_grad():
        for tensor in (model[1][0][0].weight, model[1][0][1].weight, model[1][0][1].bias):
            tensor[dead] = 0
        model[1][1][0].weight[:, dead] = 0
    pruned = halved(model, IMAGE, importance=importance, ignore=["0.0", "1.1.0"])
    if importance == "magnitude":  # others never answer on so few images, and matter as little
        assert torch.equal(pruned[1][0][0].weight, model[1][0][0].weight[1::2])
    # Removing zeros changes sums by their order at most.
    torch.testing.assert_close(pruned(IMAGE), model(IMAGE), rtol=1e-5, atol=1e-5)
    assert channel_report(pruned).groups[0].importance_kept == pytest.approx(1)


def test_a_loss_decides_where_there_is_one(models):
    """A loss that looks at one class only; channels that it does not need go first."""
    model = Flattened().eval()
    with torch.no_grad():
        model.head.weight[0, 32:] = 0
        model.head.weight[1:, 32:] *= 10
    batches = [(IMAGE, torch.tensor([0, 1]))]
    pruned = halved(
        model,
        IMAGE,
        importance="taylor",
        calibration=batches,
        loss=lambda output, batch: output[:, 0].square().sum() + 0 * batch[1].sum(),
        compensate=False,
        ignore=["features*"],
    )
    assert channel_report(pruned).groups[0].importance_kept == pytest.approx(1)
    torch.testing.assert_close(pruned(IMAGE)[:, 0], model(IMAGE)[:, 0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(pruned(IMAGE), model(IMAGE), rtol=1e-2)


def test_compensation_is_closer_to_the_dense_model(models):
    model = models["chain"][0]
    generator = torch.Generator().manual_seed(5)
    batches = [torch.randn(8, 3, 8, 8, generator=generator) for _ in range(4)]
    unseen = torch.randn(16, 3, 8, 8, generator=generator)
    plain, refitted = (
        halved(model, IMAGE, calibration=batches, compensate=choice) for choice in (False, None)
    )
    errors = [float((m(unseen) - model(unseen)).square().mean()) for m in (plain, refitted)]
    assert errors[1] < 0.5 * errors[0]
    assert set(channel_report(refitted).compensated) == {"1.0.0", "1.1.0", "4"}
    assert not channel_report(plain).compensated


def test_the_result_trains_and_converts(models):
    model, *_ = models["residual"]
    pruned = halved(copy.deepcopy(model).train(), IMAGE)
    assert pruned.training and any("train mode" in n for n in channel_report(pruned).notes)
    pruned(IMAGE).square().sum().backward()
    assert all(p.grad is not None for p in pruned.parameters())
    pruned.eval()
    fast = fastinfer.convert(pruned, IMAGE, config=fastinfer.Config(allow_slower=True))
    assert fast(IMAGE).shape == (2, 5)
    assert fastinfer.report(fast).path == "graph"


def test_frozen_parameters_stay_frozen(models):
    model = copy.deepcopy(models["chain"][0])
    model[0].requires_grad_(False)
    pruned = halved(model, IMAGE)
    assert not pruned[0][0].weight.requires_grad and pruned[4].weight.requires_grad


def test_ignored_layers_and_their_partners_stay(models):
    model = models["residual"][0]
    pruned = halved(model, IMAGE, ignore=["0.0"])
    assert pruned.get_submodule("0.0").out_channels == 32
    assert pruned.get_submodule("1.a.0").out_channels == 32
    assert any("ignored" in r.reason for r in channel_report(pruned).refused)


def test_report_is_data_and_a_table(models):
    import json

    report = channel_report(halved(models["residual"][0], IMAGE))
    json.dumps(report.to_dict())
    text = str(report)
    assert "0.0" in text and "with 1 more" in text and "stays: the model's output" in text


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"sparsity": 1.0}, ValueError, "sparsity: expected 0 <= sparsity < 1, got 1.0"),
        ({"sparsity": float("nan")}, ValueError, "sparsity"),
        ({"sparsity": "half"}, ValueError, "sparsity"),
        ({"importance": "fisher"}, ValueError, "importance: expected one of"),
        ({"scope": "some"}, ValueError, "scope: expected one of"),
        ({"allocation": "even"}, ValueError, "allocation: expected one of"),
        ({"round_to": 0}, ValueError, "round_to: expected an integer >= 1"),
        ({"max_sparsity": 1}, ValueError, "max_sparsity"),
        ({"loss": 3, "importance": "taylor"}, TypeError, "loss: expected a function"),
        ({"loss": len}, ValueError, "loss: it is for importance='taylor'"),
        ({"calibration": IMAGE}, TypeError, "calibration: expected an iterable of batches"),
        ({"calibration": []}, ValueError, "at least one batch"),
        ({"ignore": "head"}, TypeError, "ignore: expected a sequence of names"),
        ({"ignore": ["nothing"]}, ValueError, "matches none"),
        ({"compensate": "yes"}, TypeError, "compensate"),
        (
            {"loss": lambda output, batch: output, "importance": "taylor"},
            ValueError,
            r"loss: expected a finite scalar tensor, got \[2, 5\]",
        ),
    ],
)
def test_bad_requests(models, options, error, text):
    with pytest.raises(error, match=text):
        halved(models["chain"][0], IMAGE, **options)


def test_bad_models(models):
    with pytest.raises(TypeError, match=r"model: expected an nn\.Module"):
        halved("model", IMAGE)
    with pytest.raises(TypeError, match="channel_report: expected a model returned"):
        channel_report(models["chain"][0])

    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match=r"torch\.export captures"):
        halved(image_model(Branches(), 32), IMAGE)


def test_prune_with_pattern_channel(models):
    model = models["residual"][0]
    small = fastinfer.prune(model, IMAGE, pattern="channel", sparsity=0.4)
    report = fastinfer.channel_report(small)
    assert report.importance == "taylor" and report.parameters[1] <= 0.6 * report.parameters[0]
    assert report.compensated
    plain = fastinfer.prune(model, IMAGE, pattern="channel", sparsity=0.4, method="magnitude")
    assert not fastinfer.channel_report(plain).compensated
    with pytest.raises(ValueError, match="sparsity: expected the share of parameters"):
        fastinfer.prune(model, IMAGE, pattern="channel")
    with pytest.raises(TypeError, match="channel_report is for pattern 'channel'"):
        fastinfer.pruning_report(small)


def test_keyword_arguments_of_the_example():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3))

        def forward(self, x, *, scale):
            return self.net(x) * scale

    torch.manual_seed(0)
    model, x, scale = Two().eval(), torch.randn(4, 8), torch.rand(4, 1)
    small = halved(model, x, example_kwargs={"scale": scale}, importance="taylor")
    assert small.net[0].out_features == 32 and small(x, scale=scale).shape == (4, 3)
