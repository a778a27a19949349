"""Audio: the encoder that listens, and speech from text."""

from comfy_api.latest import io

from ..comfy_bridge import folders
from ..comfy_bridge.media import audio as bridge
from ..comfy_bridge.models import loaded_files
from .schema import FileInput, WanNode, schema
from .settings import seed_input


class WanAudioEncoderLoader(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanAudioEncoderLoader",
            "Wan Load Audio Encoder",
            ["wav2vec2", "audio"],
            folder="loaders",
            description="Loads wav2vec2, which listens for S2V-14B, as an AUDIO_ENCODER.",
            inputs=[
                FileInput(
                    "audio_encoder_name",
                    options=folders.options("audio_encoders"),
                    tooltip="wav2vec2-large-xlsr-53-english: the folder of an official release in models/wan, or a "
                    "file in models/audio_encoders.",
                )
            ],
            outputs=[io.AudioEncoder.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, audio_encoder_name: str, **_: object) -> str:
        return loaded_files.fingerprint(audio_encoder_name, "audio_encoders")

    @classmethod
    def execute(cls, audio_encoder_name: str) -> io.NodeOutput:
        return io.NodeOutput(bridge.load_audio_encoder(folders.resolve(audio_encoder_name, "audio_encoders")))


class WanAudioEncode(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanAudioEncode",
            "Wan Audio Encode",
            ["speech", "wav2vec2"],
            folder="conditioning",
            description="Encodes speech of any rate and number of channels for S2V models, up to 15 minutes.",
            inputs=[
                io.AudioEncoder.Input(
                    "audio_encoder", tooltip="From WanAudioEncoderLoader, or the host's loader."
                ),
                io.Audio.Input("audio", tooltip="The speech; any rate and channels."),
            ],
            outputs=[io.AudioEncoderOutput.Output()],
        )

    @classmethod
    def execute(cls, audio_encoder: io.AudioEncoder.Type, audio: io.Audio.Type) -> io.NodeOutput:
        return io.NodeOutput(audio_encoder.encode_audio(*bridge.check_sound(audio)))


class WanTextToSpeech(WanNode):
    NONE = "(none in models/tts)"

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanTextToSpeech",
            "Wan Text to Speech",
            ["tts", "cosyvoice", "voice"],
            folder="audio",
            description="Speech of a text, by a model that you have. Nothing is downloaded.",
            inputs=[
                io.String.Input("text", multiline=True, tooltip="What is said."),
                FileInput(
                    "voice",
                    options=list(folders.voices()) or [cls.NONE],
                    tooltip="A folder in models/tts: of transformers (facebook/mms-tts-eng ...), or CosyVoice2-0.5B "
                    "where CosyVoice is installed.",
                ),
                seed_input("The same seed, text and voice give the same speech."),
                io.Audio.Input(
                    "voice_sample", optional=True, tooltip="The voice to speak with; CosyVoice needs one."
                ),
                io.String.Input(
                    "voice_sample_text",
                    default="",
                    optional=True,
                    tooltip="What is said in the sample, if you know it.",
                ),
            ],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(
        cls,
        text: str,
        voice: str,
        seed: int,
        voice_sample: io.Audio.Type | None = None,
        voice_sample_text: str = "",
    ) -> io.NodeOutput:
        return io.NodeOutput(
            bridge.speak(text, voice, seed, sample=voice_sample, sample_text=voice_sample_text)
        )
