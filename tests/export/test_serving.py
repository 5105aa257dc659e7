"""The folder for TensorFlow Serving, asked over gRPC as its clients do.

TensorFlow Serving itself was not run: the package registries do not have it. What answers is TensorFlow's own loader
behind the service definition of tensorflow-serving-api; the client, the messages and the wire are the real ones.
"""

import concurrent.futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from pipeline.config import ExportConfig, MLPStudent, TransformConfig
from pipeline.data import RankingData
from pipeline.data.transform import fit_transform
from pipeline.export.formats import export
from pipeline.export.raw_scorer import RawScorer
from pipeline.models.scorer import build_scorer
from tests.closeness import assert_close

NUM_FEATURES = 6


class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict as TensorFlow Serving does it: the highest version, the named signature, all its outputs."""

    def __init__(self, base_path):
        version = max(
            (folder for folder in base_path.iterdir() if folder.name.isdigit()), key=lambda f: int(f.name)
        )
        self.version = int(version.name)
        self.model = tf.saved_model.load(str(version), tags=["serve"])

    def Predict(self, request, context):
        name = request.model_spec.signature_name or "serving_default"
        if name not in self.model.signatures:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no signature {name}")
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        for key, value in self.model.signatures[name](**inputs).items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        response.model_spec.version.value = self.version
        return response


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(stub of a client, features [docs, F], scores of Keras)."""
    folder = tmp_path_factory.mktemp("run")
    features = np.random.default_rng(0).lognormal(0, 2, (12, NUM_FEATURES)).astype(np.float32)
    labels = np.arange(12, dtype=np.float32) % 3
    data = RankingData(features, labels, np.array([0, 5, 12]), np.array(["a", "b"]))
    transform = fit_transform(TransformConfig(), features)
    scorer = build_scorer(MLPStudent(hidden=[4]), NUM_FEATURES, seed=0)
    for version in (9, 10):
        export(RawScorer(transform, scorer), data, ExportConfig(formats=["serving"], version=version), folder)
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(folder / "serving"), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield (
            prediction_service_pb2_grpc.PredictionServiceStub(channel),
            features,
            scorer(transform(features)).numpy(),
        )
    server.stop(None)


def ask(stub, signature, **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "student", signature
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    response = stub.Predict(request, timeout=30)
    assert response.model_spec.version.value == 10
    return tf.make_ndarray(response.outputs["scores"])


@pytest.mark.parametrize("signature", ["rank", "serving_default"])
def test_documents_get_their_scores(served, signature):
    stub, features, expected = served
    assert_close(ask(stub, signature, features=features), expected, rtol=1e-5, atol=1e-6)


def test_lists_get_their_scores_and_padding_sorts_last(served):
    stub, features, expected = served
    mask = np.array([[True] * 5 + [False] * 2, [True] * 7])
    padded = np.full((2, 7, NUM_FEATURES), 1e9, np.float32)
    padded[mask] = features
    scores = ask(stub, "rank_lists", features=padded, mask=mask)
    assert_close(scores[mask], expected, rtol=1e-5, atol=1e-6)
    assert (scores[~mask] == -np.inf).all()


def test_an_unknown_signature_is_an_error_of_the_call(served):
    stub, features, _ = served
    with pytest.raises(grpc.RpcError, match="no signature rnk"):
        ask(stub, "rnk", features=features)
