"""Loading, evaluation and use of trained models."""

from fuzzyseg.inference.evaluate import evaluate
from fuzzyseg.inference.model import load, save_model
from fuzzyseg.inference.model_card import ModelCard, read_card
from fuzzyseg.inference.predict import predict_files
from fuzzyseg.inference.predictor import Prediction, Predictor, Protocol

__all__ = [
    "ModelCard", "Prediction", "Predictor", "Protocol", "evaluate", "load", "predict_files", "read_card", "save_model",
]  # fmt: skip
