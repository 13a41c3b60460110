"""What a Rasid model is, on disk and in memory. Imported by every other room; imports none of them."""

from models.bundle import Bundle, load_bundle, released_bundle_path
from models.classifier import Classifier, TextItem
from models.errors import RasidError
from models.prediction import Prediction, Rejection
from models.taxonomy import Taxonomy, load_taxonomy

__all__ = [
    "Bundle",
    "Classifier",
    "Prediction",
    "RasidError",
    "Rejection",
    "Taxonomy",
    "TextItem",
    "load_bundle",
    "load_taxonomy",
    "released_bundle_path",
]
