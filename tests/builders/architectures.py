"""Small real architectures of ``transformers``, by configuration and with random weights; no download.

Each entry makes ``(model, arguments, keywords)``. They are small in width and depth and otherwise as the library
has them, so that what breaks here breaks in the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import transformers as tf

Made: TypeAlias = "tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]"

SMALL: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
LENGTH = 16


@dataclass(frozen=True)
class Architecture:
    """``kind`` is encoder, decoder, vision, audio or encoder-decoder; ``quick`` ones run in every test run."""

    name: str
    kind: str
    make: Callable[[], Made]
    quick: bool = False


def tokens(length: int = LENGTH) -> torch.Tensor:
    return torch.randint(2, 100, (1, length))


def pixels(size: int = 32) -> torch.Tensor:
    return torch.randn(1, 3, size, size)


def text(model: type, config: type, **more: Any) -> Callable[[], Made]:
    """A model over tokens, of the usual size."""
    return lambda: (model(config(**{**SMALL, **more})), (tokens(),), {})


def decoder(model: type, config: type, **more: Any) -> Callable[[], Made]:
    """A causal model over tokens, without the cache that it would keep between steps."""
    settings = {**SMALL, "num_key_value_heads": 2, **more}
    return lambda: (model(config(**settings)), (tokens(),), {"use_cache": False})


def vision(model: type, config: type, size: int = 32, **more: Any) -> Callable[[], Made]:
    return lambda: (model(config(image_size=size, **more)), (pixels(size),), {})


def _vit(**more: Any) -> dict[str, Any]:
    small = {name: SMALL[name] for name in SMALL if name not in ("vocab_size", "max_position_embeddings")}
    return {**small, "patch_size": 8, **more}


def _gpt2() -> Made:
    config = tf.GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    return tf.GPT2LMHeadModel(config), (tokens(),), {"use_cache": False}


def _t5(part: type) -> Callable[[], Made]:
    sizes = {"vocab_size": 128, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    return lambda: (part(tf.T5Config(**sizes)), (tokens(),), {})


def _t5_whole() -> Made:
    sizes = {"vocab_size": 128, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    model = tf.T5ForConditionalGeneration(tf.T5Config(**sizes))
    return model, (), {"input_ids": tokens(), "decoder_input_ids": tokens(8), "use_cache": False}


def _bart() -> Made:
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    model = tf.BartModel(tf.BartConfig(vocab_size=128, d_model=32, max_position_embeddings=64, **layers, **heads))
    return model, (), {"input_ids": tokens(), "decoder_input_ids": tokens(8), "use_cache": False}


def _whisper_config() -> Any:
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return tf.WhisperConfig(
        vocab_size=128, d_model=32, num_mel_bins=16, max_source_positions=50, max_target_positions=32,
        **layers, **heads, **ends,
    )  # fmt: skip


def _whisper_encoder() -> Made:
    model = tf.WhisperModel(_whisper_config()).get_encoder()
    return model, (torch.randn(1, 16, 100),), {}


def _whisper() -> Made:
    model = tf.WhisperForConditionalGeneration(_whisper_config())
    features = torch.randn(1, 16, 100)
    return model, (), {"input_features": features, "decoder_input_ids": tokens(8), "use_cache": False}


def _speech(model: type, config: type) -> Callable[[], Made]:
    convolutions = {"conv_dim": (16, 16), "conv_stride": (5, 2), "conv_kernel": (10, 3)}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    sizes = {name: SMALL[name] for name in SMALL if name not in ("vocab_size", "max_position_embeddings")}
    return lambda: (
        model(config(**sizes, **convolutions, **positions, num_feat_extract_layers=2)),
        (torch.randn(1, 1600),),
        {},
    )


def _swin(model: type, config: type) -> Callable[[], Made]:
    sizes = {"patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
    return lambda: (model(config(image_size=32, **sizes)), (pixels(),), {})


def _convnext() -> Made:
    config = tf.ConvNextConfig(hidden_sizes=[16, 32], depths=[2, 2], num_stages=2)
    return tf.ConvNextModel(config), (pixels(64),), {}


def _resnet() -> Made:
    config = tf.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[2, 2])
    return tf.ResNetForImageClassification(config), (pixels(64),), {}


def _segformer() -> Made:
    stages = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 16, 32], "num_attention_heads": [1, 2, 2, 4]}
    config = tf.SegformerConfig(decoder_hidden_size=16, **stages)
    return tf.SegformerForSemanticSegmentation(config), (pixels(64),), {}


def _ast() -> Made:
    config = tf.ASTConfig(**_vit(patch_size=8), max_length=64, num_mel_bins=32, time_stride=8, frequency_stride=8)
    return tf.ASTModel(config), (torch.randn(1, 64, 32),), {}


def _clip_config() -> Any:
    words = {**SMALL, "eos_token_id": 2}
    return tf.CLIPConfig(text_config=words, vision_config={**_vit(), "image_size": 32}, projection_dim=16)


def _clip() -> Made:
    return tf.CLIPModel(_clip_config()), (tokens(), pixels()), {}


def _clap_audio() -> Made:
    config = tf.ClapAudioConfig(
        window_size=4, num_mel_bins=16, spec_size=32, patch_size=4, patch_stride=(4, 4), hidden_size=32,
        patch_embeds_hidden_size=8, depths=[2, 2], num_attention_heads=[2, 2], projection_dim=16,
    )  # fmt: skip
    return tf.ClapAudioModel(config), (torch.randn(1, 1, 64, 16),), {}


def _detr() -> Made:
    backbone = tf.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], out_features=["stage2"])
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = tf.DetrConfig(
        use_timm_backbone=False, backbone_config=backbone, backbone=None, use_pretrained_backbone=False,
        d_model=32, num_queries=5, **layers, **heads,
    )  # fmt: skip
    return tf.DetrForObjectDetection(config), (pixels(64), torch.ones(1, 64, 64, dtype=torch.int64)), {}


def _mamba() -> Made:
    config = tf.MambaConfig(vocab_size=128, hidden_size=32, num_hidden_layers=2, state_size=8)
    return tf.MambaModel(config), (tokens(),), {"use_cache": False}


def _deberta() -> Made:
    config = tf.DebertaV2Config(**SMALL, relative_attention=True, pos_att_type=["p2c", "c2p"])
    return tf.DebertaV2Model(config), (tokens(),), {}


def _distilbert() -> Made:
    config = tf.DistilBertConfig(vocab_size=128, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    return tf.DistilBertModel(config), (tokens(), torch.ones(1, LENGTH, dtype=torch.int64)), {}


def _fnet() -> Made:
    sizes = {name: SMALL[name] for name in SMALL if name != "num_attention_heads"}
    return tf.FNetModel(tf.FNetConfig(**sizes)), (tokens(),), {}


def _mixtral() -> Made:
    config = tf.MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=4)
    return tf.MixtralForCausalLM(config), (tokens(),), {"use_cache": False}


def _efficientnet() -> Made:
    config = tf.EfficientNetConfig(image_size=64, depth_coefficient=0.25, width_coefficient=1.0, hidden_dim=1280)
    return tf.EfficientNetModel(config), (pixels(64),), {}


def _mobilevit() -> Made:
    config = tf.MobileViTConfig(
        image_size=64, hidden_sizes=[16, 16, 16], neck_hidden_sizes=[8, 8, 8, 16, 16, 16, 32], num_attention_heads=2
    )
    return tf.MobileViTModel(config), (pixels(64),), {}


ALL: tuple[Architecture, ...] = (
    Architecture("bert", "encoder", text(tf.BertModel, tf.BertConfig)),
    Architecture("distilbert", "encoder", _distilbert),
    Architecture("roberta", "encoder", text(tf.RobertaModel, tf.RobertaConfig)),
    Architecture("electra", "encoder", text(tf.ElectraModel, tf.ElectraConfig)),
    Architecture("albert", "encoder", text(tf.AlbertModel, tf.AlbertConfig, embedding_size=16)),
    Architecture("deberta-v2", "encoder", _deberta),
    Architecture("modernbert", "encoder", text(tf.ModernBertModel, tf.ModernBertConfig, pad_token_id=0)),
    Architecture("fnet", "encoder", _fnet),
    Architecture("t5-encoder", "encoder", _t5(tf.T5EncoderModel)),
    Architecture("gpt2", "decoder", _gpt2),
    Architecture("llama", "decoder", decoder(tf.LlamaForCausalLM, tf.LlamaConfig), quick=True),
    Architecture("mistral", "decoder", decoder(tf.MistralForCausalLM, tf.MistralConfig)),
    Architecture("qwen2", "decoder", decoder(tf.Qwen2ForCausalLM, tf.Qwen2Config)),
    Architecture("gemma2", "decoder", decoder(tf.Gemma2ForCausalLM, tf.Gemma2Config, head_dim=8)),
    Architecture("phi3", "decoder", decoder(tf.Phi3ForCausalLM, tf.Phi3Config, pad_token_id=0)),
    Architecture("mixtral", "decoder", _mixtral),
    Architecture("mamba", "decoder", _mamba),
    Architecture("vit", "vision", vision(tf.ViTModel, tf.ViTConfig, **_vit())),
    Architecture("deit", "vision", vision(tf.DeiTModel, tf.DeiTConfig, **_vit())),
    Architecture("dinov2", "vision", vision(tf.Dinov2Model, tf.Dinov2Config, **_vit())),
    Architecture("swin", "vision", _swin(tf.SwinModel, tf.SwinConfig), quick=True),
    Architecture("swinv2", "vision", _swin(tf.Swinv2Model, tf.Swinv2Config)),
    Architecture("convnext", "vision", _convnext),
    Architecture("resnet", "vision", _resnet),
    Architecture("efficientnet", "vision", _efficientnet),
    Architecture("mobilevit", "vision", _mobilevit),
    Architecture("segformer", "vision", _segformer),
    Architecture("detr", "vision", _detr),
    Architecture("clip", "vision", _clip),
    Architecture("wav2vec2", "audio", _speech(tf.Wav2Vec2Model, tf.Wav2Vec2Config)),
    Architecture("hubert", "audio", _speech(tf.HubertModel, tf.HubertConfig)),
    Architecture("ast", "audio", _ast),
    Architecture("clap-audio", "audio", _clap_audio),
    Architecture("whisper-encoder", "audio", _whisper_encoder),
    Architecture("whisper", "encoder-decoder", _whisper),
    Architecture("bart", "encoder-decoder", _bart),
    Architecture("t5", "encoder-decoder", _t5_whole),
)

BY_NAME: Mapping[str, Architecture] = {architecture.name: architecture for architecture in ALL}


def exported(architecture: Architecture) -> torch.export.ExportedProgram:
    """The architecture's program, the same every time."""
    torch.manual_seed(0)
    model, arguments, keywords = architecture.make()
    with torch.no_grad():
        return torch.export.export(model.eval(), arguments, keywords)
