import math

import pytest
import torch

from fastinfer.measure import cosine, max_abs, sqnr_db, top1_agreement

X = torch.tensor([3.0, 4.0])


def test_sqnr_of_known_noise() -> None:
    assert sqnr_db(X, X * 1.1) == pytest.approx(20.0, abs=1e-5)
    assert sqnr_db(X, X) == math.inf
    assert sqnr_db(torch.zeros(2), X) == -math.inf
    assert sqnr_db(X, torch.tensor([3.0, math.nan])) == -math.inf


def test_values_not_finite_in_the_reference_are_left_out() -> None:
    masked = torch.tensor([3.0, -math.inf])
    assert sqnr_db(masked, masked) == math.inf
    assert cosine(masked, torch.tensor([3.0, 0.0])) == 1.0


def test_cosine_and_max() -> None:
    assert cosine(X, 2 * X) == pytest.approx(1.0)
    assert cosine(X, torch.tensor([-4.0, 3.0])) == pytest.approx(0.0)
    assert cosine(torch.zeros(2), torch.zeros(2)) == 1.0
    assert cosine(torch.zeros(2), X) == 0.0
    assert max_abs(X, torch.tensor([3.5, 2.0])) == 2.0
    assert max_abs(torch.zeros(0), torch.zeros(0)) == 0.0


def test_half_and_integers() -> None:
    assert sqnr_db(X, X.half()) == math.inf
    assert max_abs(torch.tensor([1, 2]), torch.tensor([1, 5])) == 3.0


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\[2\] like the reference's, got \[3\]"):
        sqnr_db(X, torch.zeros(3))


def test_top1_agreement_and_its_threshold() -> None:
    reference = torch.tensor([[9.0, 0.0], [0.1, 0.0], [0.0, 9.0]])
    actual = torch.tensor([[5.0, 0.0], [0.0, 0.1], [0.0, 1.0]])
    assert top1_agreement(reference, actual) == (pytest.approx(2 / 3), 3)
    assert top1_agreement(reference, actual, min_probability=0.9) == (1.0, 2)
    share, count = top1_agreement(reference[:0], actual[:0])
    assert math.isnan(share) and count == 0
    with pytest.raises(ValueError, match="two \\[N, classes\\] tensors"):
        top1_agreement(X, X)
