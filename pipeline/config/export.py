"""Options of the export."""

from __future__ import annotations

import dataclasses

from pipeline.config.checks import check, one_of

FORMATS = ("saved_model", "serving", "tflite", "tflite_int8", "onnx")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """What the student is written as: a file or folder for each format, checked against Keras."""

    formats: list[str] = dataclasses.field(default_factory=lambda: ["saved_model"])
    version: int = 1  # of the model in TensorFlow Serving, which serves the highest it finds; format serving

    def __post_init__(self) -> None:
        check(bool(self.formats), "export.formats", self.formats, "at least one")
        for name in self.formats:
            one_of("export.formats", name, FORMATS)
        check(len(set(self.formats)) == len(self.formats), "export.formats", self.formats, "each once")
        check(self.version >= 1, "export.version", self.version, "at least 1")
        check(
            self.version == 1 or "serving" in self.formats,
            "export.version",
            self.version,
            "it has no effect; add serving to export.formats",
        )
