"""What is known of a tensor's content without a look at it, and what is looked at."""

import pytest
import torch

from wan_models.content import Seen, note_origin, origin_of, tracked


@pytest.fixture
def compared(monkeypatch):
    """How often content was compared."""
    calls, equal = [], torch.equal
    monkeypatch.setattr(torch, "equal", lambda a, b: calls.append(a.shape) or equal(a, b))
    return calls


def made_of(*sources, dtype=torch.float32):
    with torch.inference_mode(False):
        out = torch.cat(sources).to(dtype, copy=True)
    note_origin(out, sources)
    return out


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_new_tensors_of_the_same_sources_are_not_compared(mode, compared):
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    with mode():
        seen = Seen.of(made_of(a, b))
        assert all(seen.is_held_by(made_of(a, b)) for _ in range(5))
        assert seen.is_held_by(seen.tensor)
        assert not compared
        # of other sources: unknown, so they are compared
        assert seen.is_held_by(made_of(a.clone(), b)) and not seen.is_held_by(made_of(b, a))
        assert len(compared) == 2
        # of another shape or dtype: never the same
        assert not seen.is_held_by(made_of(a)) and not seen.is_held_by(made_of(a, b, dtype=torch.float64))
        assert len(compared) == 2


WRITES = {
    "itself": lambda x: x.mul_(2),
    "a part": lambda x: x[0, :1].add_(1),
    "a view of a view": lambda x: x.view(-1)[1:].unbind()[0].fill_(7),
    "out=": lambda x: torch.add(x, 1, out=x),
    "copy": lambda x: x.copy_(torch.ones_like(x)),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_what_is_written_to_is_another(mode, write, compared):
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    with mode():
        seen = Seen.of(made_of(a, b))
        other = made_of(a, b)
        write(other)
        assert not seen.is_held_by(other) and origin_of(other) is None
        # what was seen is written to: it cannot stand for what it was, but its origin can
        first = seen.tensor.clone()
        write(seen.tensor)
        assert not seen.is_held_by(seen.tensor) and not seen.is_held_by(seen.tensor.clone())
        assert seen.is_held_by(made_of(a, b))
        write(a)
        now = made_of(a, b)
        assert not seen.is_held_by(now) and not torch.equal(now, first)


def test_tensors_of_inference_mode_are_compared(compared):
    with torch.inference_mode():
        a = torch.randn(2, 3)
        out = torch.cat([a, a])
        note_origin(out, [a, a])
        seen = Seen.of(out)
        assert origin_of(out) is None
        assert seen.is_held_by(torch.cat([a, a])) and not seen.is_held_by(torch.cat([a, a + 1]))
        assert len(compared) == 2
        copy = tracked(a)
        assert torch.equal(copy, a) and not copy.is_inference() and tracked(copy) is copy
