"""The kernel of every process here, against GPyTorch."""

from __future__ import annotations

import gpytorch
import pytest
import torch

from metamodel.gp.kernels import matern52


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 30.0])
def test_the_matern_correlation_is_that_of_gpytorch(scale: float) -> None:
    left, right = torch.rand(7, 3, dtype=torch.double) * scale, torch.rand(5, 3, dtype=torch.double) * scale
    kernel = gpytorch.kernels.MaternKernel(nu=2.5).double()
    kernel.lengthscale = 1.0
    with torch.no_grad():
        assert torch.allclose(matern52(left, right), kernel(left, right).to_dense(), atol=1e-9)


def test_the_matern_correlation_is_differentiable_where_points_coincide() -> None:
    points = torch.rand(4, 2, requires_grad=True)
    matern52(points, points).sum().backward()
    assert points.grad is not None
    assert torch.isfinite(points.grad).all()
