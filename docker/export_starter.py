"""Exports the encoder `starter` for ONNX Runtime, for an image without torch.

    python docker/export_starter.py FOLDER

The folder becomes what `cache_dir` may be.
"""

import sys
from pathlib import Path

from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.embed.runtime.network import HasNetworks
from es_imgsearch.embed.runtime.onnx import Exports, find_or_export


def main(folder: Path) -> None:
    encoder = load_encoder("starter")
    if not isinstance(encoder, HasNetworks):
        raise TypeError("starter says nothing of its networks")
    for network in encoder.networks:
        export = find_or_export(Exports(folder), network, "float32", encoder.name)
        if export is None:
            sys.exit(f"The {network.part} of {encoder.name} cannot be exported.")
        print(f"{encoder.name}, {network.part}: cosine to torch {export.cosine}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
