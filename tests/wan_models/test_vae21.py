"""Progress and Cancel of decoding, by the 2.1 autoencoder; numbers of both are looked at in test_vaes.py."""

import pytest
import torch
from tests_support import randomize_

from wan_models.config import VAEConfig
from wan_models.vae import streaming
from wan_models.vae.wan21 import WanVAE21


@torch.no_grad()
def test_progress_and_cancel_leave_nothing_behind(seed, monkeypatch):
    monkeypatch.setitem(streaming.PIECE_BYTES, "cpu", 1)
    vae = randomize_(WanVAE21(VAEConfig(base_dim=8)), std=0.1)
    z = torch.randn(1, 16, 4, 2, 2)
    seen = []
    whole = vae.decode(z, on_frames=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def cancel(done, total):
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        vae.decode(z, on_frames=cancel)
    assert torch.equal(vae.decode(z), whole)
