"""What a model is for and what it is loaded with: what the card says, or what the files give away."""

from collections.abc import Mapping
from typing import Any, Final

from hooks.formats.card_values import LIBRARIES
from hooks.parsed_tree import ParsedTree

# Endings of class names in transformers, the longer ones first where one ends in another.
_HEADS: Final = (
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("ForMaskedLM", "fill-mask"),
    ("ForSequenceClassification", "text-classification"),
    ("ForTokenClassification", "token-classification"),
    ("ForQuestionAnswering", "question-answering"),
    ("ForMultipleChoice", "multiple-choice"),
    ("ForImageTextToText", "image-text-to-text"),
    ("ForZeroShotImageClassification", "zero-shot-image-classification"),
    ("ForImageClassification", "image-classification"),
    ("ForVideoClassification", "video-classification"),
    ("ForAudioClassification", "audio-classification"),
    ("ForZeroShotObjectDetection", "zero-shot-object-detection"),
    ("ForObjectDetection", "object-detection"),
    ("ForSemanticSegmentation", "image-segmentation"),
    ("ForInstanceSegmentation", "image-segmentation"),
    ("ForUniversalSegmentation", "image-segmentation"),
    ("ForImageSegmentation", "image-segmentation"),
    ("ForDepthEstimation", "depth-estimation"),
    ("ForMaskGeneration", "mask-generation"),
    ("ForSpeechSeq2Seq", "automatic-speech-recognition"),
    ("ForCTC", "automatic-speech-recognition"),
    ("ForTextToWaveform", "text-to-audio"),
)
# The one ending that says little by itself.
_CONDITIONAL: Final = {
    "whisper": "automatic-speech-recognition",
    "speech_to_text": "automatic-speech-recognition",
    "t5": "text2text-generation",
    "mt5": "text2text-generation",
    "bart": "text2text-generation",
    "mbart": "translation",
    "m2m_100": "translation",
    "pegasus": "summarization",
}
_ADAPTED: Final = {
    "CAUSAL_LM": "text-generation",
    "SEQ_2_SEQ_LM": "text2text-generation",
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "FEATURE_EXTRACTION": "feature-extraction",
}
_PIPELINES: Final = (
    ("video", "text-to-video"),
    ("img2img", "image-to-image"),
    ("inpaint", "image-to-image"),
    ("upscale", "image-to-image"),
    ("audio", "text-to-audio"),
    ("ddpm", "unconditional-image-generation"),
    ("ddim", "unconditional-image-generation"),
)
# GGUF architectures that make vectors instead of text.
_EMBEDDING: Final = ("bert", "t5encoder", "gemma-embedding")


def tasks(tree: ParsedTree) -> tuple[str, ...]:
    """What it is for; several for a dataset. The card decides, otherwise the first file that says it."""
    card = tree.at("README.md", "card")
    declared = [card["pipeline_tag"]] if card.get("pipeline_tag") else card.get("task_categories")
    if declared:
        return tuple(declared[:50])
    inferred = (
        _of_sentence_transformers(tree)
        or _of_pipeline(tree.at("model_index.json", "diffusers"))
        or _of_adapter(tree.main("adapter"))
        or _of_config(tree.main("config"))
        or _of_gguf(tree)
    )
    return () if inferred is None else (inferred,)


def library(tree: ParsedTree) -> str | None:
    """What loads it, in the order of the Hugging Face Hub: the card, its tags, the files."""
    card = tree.at("README.md", "card")
    declared = card.get("library_name")
    tagged = next((tag for tag in card.get("tags") or () if tag.lower() in LIBRARIES), None)
    return declared or tagged or _library_of_files(tree)


def _library_of_files(tree: ParsedTree) -> str | None:
    if tree.main("adapter"):
        return "peft"
    if tree.at("model_index.json", "diffusers"):
        return "diffusers"
    if tree.at("modules.json", "sentence-transformers"):
        return "sentence-transformers"
    config = tree.main("config")
    hints = [hint for hint in config.get("library_hints") or () if hint != "transformers"]
    if hints:
        return str(hints[0])
    if config.get("model_type") or config.get("architectures") or config.get("library_hints"):
        return "transformers"
    return next((file.format for file in tree.of("gguf")), None) or next(
        (file.format for file in tree.of("onnx")), None
    )


def _of_sentence_transformers(tree: ParsedTree) -> str | None:
    return "sentence-similarity" if tree.at("modules.json", "sentence-transformers") else None


def _of_pipeline(pipeline: Mapping[str, Any]) -> str | None:
    name = str(pipeline.get("class_name") or "").lower()
    if not name:
        return None
    return next((task for part, task in _PIPELINES if part in name), "text-to-image")


def _of_adapter(adapter: Mapping[str, Any]) -> str | None:
    return _ADAPTED.get(str(adapter.get("task_type")))


def _of_config(config: Mapping[str, Any]) -> str | None:
    kind = config.get("model_type")
    for architecture in config.get("architectures") or ():
        for ending, task in _HEADS:
            if architecture.endswith(ending):
                return task
        if architecture.endswith("ForConditionalGeneration"):
            seeing = any("vision" in part for part in config.get("parts") or ())
            return _CONDITIONAL.get(str(kind), "image-text-to-text" if seeing else None)
        if architecture.endswith("Model") and architecture != "Model":
            return "feature-extraction"
    return None


def _of_gguf(tree: ParsedTree) -> str | None:
    architectures = [str(file.metadata.get("architecture") or "") for file in tree.of("gguf")]
    named = [one for one in architectures if one and one != "clip"]
    if not named:
        return None
    return "feature-extraction" if any(part in named[0] for part in _EMBEDDING) else "text-generation"
