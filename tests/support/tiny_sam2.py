"""A SAM2 for video, as transformers has it, small enough for tests."""

import torch


def write_sam2(folder, seed=0):
    """Random weights that see something everywhere."""
    import transformers as t

    torch.manual_seed(seed)
    side, dim = 128, 128
    backbone = t.Sam2HieraDetConfig(
        hidden_size=8, image_size=[side, side], blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 4], window_size_per_stage=[8, 4, 4, 2], global_attention_blocks=[3],
    )  # fmt: skip
    vision = t.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=dim,
        backbone_feature_sizes=[[side // n] * 2 for n in (4, 8, 16)],
    )  # fmt: skip
    config = t.Sam2VideoConfig(
        vision_config=vision, image_size=side,
        prompt_encoder_config=t.Sam2VideoPromptEncoderConfig(hidden_size=dim, image_size=side),
        mask_decoder_config=t.Sam2VideoMaskDecoderConfig(
            hidden_size=dim, num_attention_heads=2, mlp_dim=32, iou_head_hidden_dim=16
        ),
        memory_attention_hidden_size=dim, memory_attention_num_layers=1, memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[8, 8], memory_encoder_hidden_size=dim, memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=dim, memory_fuser_embed_dim=dim, memory_fuser_intermediate_dim=32,
        memory_fuser_num_layers=1,
    )  # fmt: skip
    model = t.Sam2VideoModel(config)
    for param in model.parameters():
        if param.dim() > 1:
            torch.nn.init.normal_(param, std=param[0].numel() ** -0.5)
    torch.nn.init.constant_(model.mask_decoder.pred_obj_score_head.proj_out.bias, 10.0)
    model.save_pretrained(folder)
    size = {"height": side, "width": side}
    pictures = t.Sam2ImageProcessor(size=size, mask_size={"height": side // 4, "width": side // 4})
    t.Sam2VideoProcessor(pictures, t.Sam2VideoVideoProcessor(size=size), target_size=side).save_pretrained(
        folder
    )
