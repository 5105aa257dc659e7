"""Every option of the pipeline: frozen dataclasses, with units and checks."""

from pipeline.config.checks import ConfigError, nearest
from pipeline.config.composed import (
    CHOICES,
    STAGES,
    Config,
    DataConfig,
    StudentConfig,
    TeacherConfig,
    from_composed,
)
from pipeline.config.data import (
    IstellaData,
    IstellaSData,
    IstellaXData,
    LetorData,
    MSLRWeb10KData,
    MSLRWeb30KData,
    PublishedData,
    SyntheticData,
    TFDSData,
    TransformConfig,
    YahooData,
)
from pipeline.config.export import ExportConfig
from pipeline.config.student import (
    AttentionNetwork,
    AttentionStudent,
    DCNNetwork,
    DCNStudent,
    LinearStudent,
    MLPNetwork,
    MLPStudent,
    NetworkConfig,
)
from pipeline.config.teacher import LambdaMARTTeacher, RunFileTeacher, ScoresConfig
from pipeline.config.tracking import TrackingConfig
from pipeline.config.training import EvaluateConfig, GateConfig, LossConfig, TrainConfig

__all__ = [
    "CHOICES",
    "STAGES",
    "AttentionNetwork",
    "AttentionStudent",
    "Config",
    "ConfigError",
    "DCNNetwork",
    "DCNStudent",
    "DataConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GateConfig",
    "IstellaData",
    "IstellaSData",
    "IstellaXData",
    "LambdaMARTTeacher",
    "LetorData",
    "LinearStudent",
    "LossConfig",
    "MLPNetwork",
    "MLPStudent",
    "MSLRWeb10KData",
    "MSLRWeb30KData",
    "NetworkConfig",
    "PublishedData",
    "RunFileTeacher",
    "ScoresConfig",
    "StudentConfig",
    "SyntheticData",
    "TFDSData",
    "TeacherConfig",
    "TrackingConfig",
    "TrainConfig",
    "TransformConfig",
    "YahooData",
    "from_composed",
    "nearest",
]
