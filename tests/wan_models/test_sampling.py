"""Schedules to the bit, solvers on random vector fields, expert choice: all against the official schedulers."""

import pytest
import torch
from tests_support import rel_l2

from wan_models.families import RELEASES
from wan_models.sampling import schedule
from wan_models.sampling.guidance import guide, is_high_noise
from wan_models.sampling.solvers import SOLVERS, solver_class

SHIFTS = [x / 2 for x in range(1, 31)] + [17.0, 1.1, 2.3, 7.77]

OFFICIAL = ["unipc", "dpm++"]
"""The solvers that the official code has."""


def official_scheduler(solver, steps, shift):
    from wan.utils import fm_solvers, fm_solvers_unipc

    settings = {"num_train_timesteps": 1000, "shift": 1, "use_dynamic_shifting": False}
    if solver == "unipc":
        scheduler = fm_solvers_unipc.FlowUniPCMultistepScheduler(**settings)
        scheduler.set_timesteps(steps, device="cpu", shift=shift)
    else:
        scheduler = fm_solvers.FlowDPMSolverMultistepScheduler(**settings)
        fm_solvers.retrieve_timesteps(
            scheduler, device="cpu", sigmas=fm_solvers.get_sampling_sigmas(steps, shift)
        )
    return scheduler


@pytest.mark.parametrize("solver", OFFICIAL)
def test_schedule_equals_official_to_the_bit(official, solver):
    for steps in range(1, 101):
        for shift in SHIFTS if steps in (1, 2, 3, 4, 8, 20, 40, 50) else (3.0, 5.0, 12.0):
            reference = official_scheduler(solver, steps, shift)
            ours = schedule.sigmas(steps, shift, solver)
            assert torch.equal(ours, reference.sigmas), (steps, shift)
            assert torch.equal(schedule.timesteps(steps, shift, solver), reference.timesteps), (steps, shift)


@pytest.mark.parametrize("solver", SOLVERS)
def test_timesteps_come_out_of_float32_sigmas(solver):
    """The host passes float32 sigmas around; the official whole timesteps must come out of them."""
    for steps in range(1, 101):
        for shift in SHIFTS:
            sigmas = schedule.sigmas(steps, shift, solver)
            assert torch.equal(
                schedule.timestep_of(sigmas[:-1], sigmas), schedule.timesteps(steps, shift, solver)
            )


@pytest.mark.parametrize(("release", "high"), [("T2V-A14B", 26), ("I2V-A14B", 15)])
def test_expert_choice_equals_official(official, release, high):
    boundary, shift = RELEASES[release].boundary, RELEASES[release].shift
    count = sum(is_high_noise(t, boundary) for t in schedule.timesteps(40, shift).tolist())
    assert count == high
    for solver in OFFICIAL:
        for steps in range(1, 101):
            for s in (shift, 3.0, 5.0):
                reference = official_scheduler(solver, steps, s).timesteps
                sigmas = schedule.sigmas(steps, s, solver)
                chosen = [is_high_noise(int(t), boundary) for t in schedule.timestep_of(sigmas[:-1], sigmas)]
                assert chosen == [t.item() >= boundary * 1000 for t in reference], (solver, steps, s)


@pytest.mark.parametrize("solver", OFFICIAL)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 20, 40])
def test_trajectory_equals_official(official, seed, solver, steps):
    shift = 1 + 12 * torch.rand(()).item()
    mix, bias = torch.randn(6, 6) / 2, torch.randn(6)

    def velocity(x, t):
        return torch.tanh(x @ mix + bias * t / 1000) * 2

    reference, x = official_scheduler(solver, steps, shift), torch.randn(2, 3, 5, 6)
    ours, sigmas = x.clone(), schedule.sigmas(steps, shift, solver)
    state = solver_class(solver)(sigmas)
    for i, t in enumerate(reference.timesteps):
        x = reference.step(velocity(x, t), t, x, return_dict=False)[0]
        ours = state.step(ours, ours - sigmas[i] * velocity(ours, t), i)
    assert rel_l2(ours, x) < 1e-5


@pytest.mark.parametrize("solver", SOLVERS)
def test_any_schedule_of_the_host(seed, solver):
    """From sigma 1 exactly, stopping above 0, uneven: x0 constant must be reached or approached exactly."""
    sigmas = torch.tensor([1.0, 0.97, 0.6, 0.55, 0.2])
    x0, noise = torch.randn(2, 4), torch.randn(2, 4)
    state, x = solver_class(solver)(sigmas), noise
    for i in range(len(sigmas) - 1):
        x = state.step(x, x0, i)
    assert rel_l2(x, 0.8 * x0 + 0.2 * noise) < 1e-5


@pytest.mark.parametrize("solver", SOLVERS)
def test_twice_the_steps_come_nearer(solver):
    """x0 = a + b sigma, whose path is a + (c - b log sigma) sigma: the error falls by the solver's order at least."""
    a, b, c = torch.randn(3, 8, dtype=torch.float64)
    errors = []
    for steps in (20, 40):
        sigmas = torch.linspace(0.9, 0.1, steps + 1, dtype=torch.float64)
        path = a + (c - b * sigmas[:, None].log()) * sigmas[:, None]
        state, x = solver_class(solver)(sigmas), path[0]
        for i, sigma in enumerate(sigmas[:-1]):
            x = state.step(x, a + b * sigma, i)
        errors.append(float((x - path[-1]).norm()))
    assert errors[0] / errors[1] > (3 if solver in OFFICIAL else 1.7), errors


def test_guidance_and_wrong_settings():
    assert torch.equal(guide(torch.tensor([3.0]), torch.tensor([1.0]), 4.0), torch.tensor([9.0]))
    for bad in (
        lambda: schedule.sigmas(0, 5),
        lambda: schedule.sigmas(4, 0),
        lambda: schedule.sigmas(4, 5, "euler"),
    ):
        with pytest.raises(ValueError, match=r"steps must be|shift must be|unknown solver"):
            bad()
    with pytest.raises(ValueError, match=r"boundary must lie in 0\.\.1"):
        is_high_noise(500, 1.5)
    with pytest.raises(ValueError, match="unknown solver"):
        solver_class("euler")


def test_a_new_solver_is_a_line_in_the_table(monkeypatch):
    class Euler:
        first_sigma = 1.0

        def __init__(self, sigmas):
            self.sigmas = sigmas

        def step(self, x, x0, i):
            return x0 + (x - x0) * (self.sigmas[i + 1] / self.sigmas[i])

    monkeypatch.setattr("wan_models.sampling.dpm.Euler", Euler, raising=False)
    monkeypatch.setitem(SOLVERS, "euler", "sampling.dpm.Euler")
    sigmas = schedule.sigmas(4, 5.0, "euler")
    assert torch.equal(sigmas, schedule.sigmas(4, 5.0, "dpm++"))
    assert torch.equal(schedule.timesteps(4, 5.0, "euler"), schedule.timesteps(4, 5.0, "dpm++"))
    state, x, x0 = solver_class("euler")(sigmas), torch.ones(3), torch.zeros(3)
    for i in range(4):
        x = state.step(x, x0, i)
    assert torch.equal(x, x0)
