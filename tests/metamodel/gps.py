"""Tasks to learn from, and dense algebra to hold the numbers against."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.stats import norm

from metamodel.gp.shared_function import SharedKernel
from metamodel.gp.task_gp_fit import learn_shared, padded
from metamodel.gp.task_gps import TaskGPs, TaskKernel, TrainingTask


def matern(left: np.ndarray, right: np.ndarray, length: float | np.ndarray) -> np.ndarray:
    q = math.sqrt(5) * np.linalg.norm((left[:, None] - right[None]) / length, axis=-1)
    return (1 + q + q**2 / 3) * np.exp(-q)


def some_tasks(n_tasks: int = 3, n: int = 7, d: int = 2, seed: int = 0) -> list[TrainingTask]:
    rng = np.random.default_rng(seed)
    return [TrainingTask(rng.random((n, d)), rng.normal(size=n)) for _ in range(n_tasks)]


def ranked(inputs: np.ndarray, value: np.ndarray) -> TrainingTask:
    return TrainingTask(inputs, norm.ppf((value.argsort().argsort() + 0.5) / len(value)))


def task_kernel_of(length: list[float], amplitude: float = 0.8, noise: float = 0.3) -> TaskKernel:
    return TaskKernel(torch.tensor(length).log(), torch.tensor(math.log(amplitude)), torch.tensor(math.log(noise)))


def shared_of(inducing: np.ndarray, length: list[float], amplitude: float = 0.7) -> SharedKernel:
    return SharedKernel(torch.as_tensor(inducing), torch.tensor(length).double().log(), torch.tensor(math.log(amplitude)).double())


def with_shared(tasks: list[TrainingTask], kernel: SharedKernel | None, task_kernel: TaskKernel) -> TaskGPs:
    """Source tasks under given hyperparameters, nothing fitted."""
    inputs, scores, mask = padded(tasks, "cpu")
    shared_gp = None if kernel is None else learn_shared(kernel, task_kernel, inputs, scores, mask)
    return TaskGPs(inputs, scores, mask, task_kernel, shared_gp)


class Dense:
    """The same model as one big multivariate normal: every run of every task, the shared function and the task effects.

    Inducing points at every run make the sparse shared function exact there.
    """

    def __init__(self, tasks: list[TrainingTask], kernel: SharedKernel, task_kernel: TaskKernel) -> None:
        self.tasks, self.kernel, self.task_kernel = tasks, kernel, task_kernel
        self.inputs = np.concatenate([task.inputs for task in tasks])
        self.scores = np.concatenate([task.scores for task in tasks])
        self.index = np.concatenate([np.full(len(task.scores), i) for i, task in enumerate(tasks)])
        same = self.index[:, None] == self.index[None]
        noise = float(task_kernel.noise_variance) * np.eye(len(self.scores))
        self.covariance = self.shared(self.inputs, self.inputs) + same * self.apart(self.inputs, self.inputs) + noise

    def shared(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Covariance of the shared function seen through its inducing points (Nystrom)."""
        length, at = self.kernel.log_length.exp().numpy(), self.kernel.inducing.numpy()
        between = matern(at, at, length) + 1e-4 * np.eye(len(at))
        variance = float((2 * self.kernel.log_amplitude).exp())
        return variance * matern(left, at, length) @ np.linalg.solve(between, matern(at, right, length))

    def apart(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Covariance of a task effect."""
        return float(self.task_kernel.amplitude) * matern(left, right, self.task_kernel.length.double().numpy())

    def predict_shared(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gain = np.linalg.solve(self.covariance, self.shared(self.inputs, points)).T
        return gain @ self.scores, self.shared(points, points) - gain @ self.shared(self.inputs, points)
