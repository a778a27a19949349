"""The official animation transformer at a size that tests can afford."""

import torch


def small_motion_encoder(face):
    """The official motion encoder at other widths, whose own takes seconds a picture: its layers, put together by
    hand."""
    from wan.modules.animate import motion_encoder as m

    encoder = m.Generator(size=8, style_dim=face.style_dim, motion_dim=face.motion_dim)
    convs = [m.ConvLayer(3, face.channels[0], 1)]
    convs += [m.ResBlock(a, b) for a, b in zip(face.channels, face.channels[1:], strict=False)]
    convs.append(m.EqualConv2d(face.channels[-1], face.style_dim, 4, padding=0, bias=False))
    encoder.enc.net_app.convs = torch.nn.ModuleList(convs)
    return encoder


def learnt_at_unit_variance(motion_encoder):
    """The weights of a motion encoder are scaled by their fan-in in the forward."""
    for name, param in motion_encoder.named_parameters():
        torch.nn.init.normal_(param, std=0.1 if name.endswith("bias") else 1.0)
    return motion_encoder
