"""Types and limits of the options of the export."""

from __future__ import annotations

import dataclasses

from pipeline.config.checks import at_least, check, one_of
from pipeline.config.defaults import defaults_of

FORMATS = ("saved_model", "serving", "tflite", "tflite_int8", "onnx")


@dataclasses.dataclass(frozen=True)
@defaults_of("export/default")
class ExportConfig:
    formats: list[str]
    version: int

    def __post_init__(self) -> None:
        check(bool(self.formats), "export.formats", self.formats, "at least one")
        for name in self.formats:
            one_of("export.formats", name, FORMATS)
        check(len(set(self.formats)) == len(self.formats), "export.formats", self.formats, "each name once")
        at_least(1, "export", self, "version")
        ok = self.version == 1 or "serving" in self.formats
        check(ok, "export.version", self.version, "it has an effect only with serving among export.formats")
