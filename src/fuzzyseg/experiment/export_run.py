"""Export of a run's model."""

from pathlib import Path

from fuzzyseg.config import ConfigError
from fuzzyseg.data import Item
from fuzzyseg.data.io.pillow import pixel_limit
from fuzzyseg.experiment.load_run import Factory, read_for, run_config, run_items
from fuzzyseg.experiment.validation import evenly_spaced
from fuzzyseg.inference import Predictor, load
from fuzzyseg.inference.export import FORMATS, Agreement, export_model
from fuzzyseg.inference.model_card import model_folder


def export(
    source: str | Path,
    *,
    form: str = "onnx",
    out: str | Path | None = None,
    static: tuple[int, int] | None = None,
    data: str | Path | None = None,
    images: int = 50,
    tolerance: float = 1e-4,
    network: Factory | None = None,
) -> tuple[Path, Agreement]:
    """Export a model and compare its output with that of PyTorch. Returns the folder and the agreement.

    Args:
        source: a run folder, a model folder, or the name of a model on the hub.
        form: onnx, pt2 (torch.export), openvino or smp.
        out: output folder. Default: `export/FORM` in the run folder, or beside the model folder.
        static: fixed input size (H, W). Default: any size, or the training crop size for a vision transformer.
        data: folder with images to compare on. Default: the run's validation images.
        images: number of images to compare on, evenly spaced.
        tolerance: maximum fraction of predicted labels that may differ.
        network: factory for the custom network, if the model has one.

    Raises:
        ConfigError, DataError: the settings or the data are invalid, or the export is not supported.
        ExportError: the fraction of differing labels exceeds `tolerance`; nothing is written.
    """
    if form not in FORMATS:
        raise ConfigError(f"--format: found {form!r}; expected {', '.join(FORMATS)}")
    predictor, config = load(source, network=network), run_config(Path(source))
    if out is None:
        folder = model_folder(Path(source))
        if folder is None:
            raise ConfigError(f"--out: not given; {source} is not a folder in which the export could be written")
        out = folder.parent / "export" / form
    with pixel_limit(None if config is None else config.data.max_megapixels):
        kept = evenly_spaced(_items(Path(source), predictor, data), images)
        return Path(out), export_model(predictor, kept, Path(out), form=form, static=static, tolerance=tolerance)


def _items(source: Path, predictor: Predictor, data: str | Path | None) -> list[Item]:
    config = run_config(source)
    if data is not None:
        dataset = read_for(Path(data), predictor, config)
        return dataset.val or dataset.items
    if config is None or config.data.root is None:
        raise ConfigError(f"{source}: is a model without a run, so its data is unknown; give --data DIR with images")
    items = run_items(source, config, predictor, "val")
    return items or run_items(source, config, predictor, "train")
