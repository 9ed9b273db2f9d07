"""Measure pictures/s of the indexing loops of rclip and clip-retrieval.

    PYTHON benchmarks/peer_loops.py MODEL_FOLDER FILE...

Run by pipeline_speed.py, in a Python that has the two, and transformers < 5, which clip-retrieval
needs without saying so; prints one JSON object, without those that are not installed or fail.
Their readers, batches, threads and loops are as they are (rclip 3.3: threads and ONNX Runtime;
clip-retrieval 2.45: torch's DataLoader processes); only the download of a model is replaced by
MODEL_FOLDER, a CLIP in the transformers format, and clip-retrieval's batch of 256 by 16, since a
sample of fewer files would be one batch.  Loading is not counted.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path


def clip_retrieval(model: str, folder: Path, count: int) -> float:
    from all_clip import load_clip
    from clip_retrieval.clip_inference.mapper import ClipMapper
    from clip_retrieval.clip_inference.reader import FilesReader

    name = f"hf_clip:{model}"
    _, preprocess, tokenizer = load_clip(name, use_jit=False)
    mapper = ClipMapper(
        enable_image=True,
        enable_text=False,
        enable_metadata=False,
        use_mclip=False,
        clip_model=name,
        use_jit=False,
        mclip_model="",
    )
    reader = FilesReader(
        lambda keys: keys,
        preprocess,
        tokenizer,
        folder,
        batch_size=16,
        num_prepro_workers=4,
        enable_text=False,
    )
    started = time.perf_counter()
    done = sum(len(mapper(batch)["image_embs"]) for batch in reader)
    if done != count:
        raise RuntimeError(f"clip-retrieval embedded {done} of {count} pictures")
    return count / (time.perf_counter() - started)


def rclip(model: str, folder: Path, count: int) -> float:
    import onnxruntime
    import torch
    from rclip import db, main, model_download
    from rclip.model import Model
    from rclip.utils import preprocess
    from transformers import CLIPVisionModelWithProjection

    class Tower(torch.nn.Module):
        """Model that returns only the embedding, as rclip's own file does."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = CLIPVisionModelWithProjection.from_pretrained(model).eval()

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.inner(pixel_values=pixels).image_embeds

    with tempfile.TemporaryDirectory() as home:
        exported = Path(home) / "visual.onnx"
        torch.onnx.export(
            Tower(),
            (torch.zeros(2, 3, 224, 224),),
            exported,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "pictures"}},
            dynamo=False,
        )
        session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
        model_download.load_visual_query_session = lambda: session
        preprocess.IMAGE_SIZE = 224
        database = db.DB(Path(home) / "rclip.sqlite3")
        # 8 is rclip's own default.
        indexer = main.RClip(Model(), database, 8, None)
        started = time.perf_counter()
        indexer.ensure_index(str(folder))
        seconds = time.perf_counter() - started
        done = len(list(database.get_image_vectors_by_dir_path(str(folder))))
        indexer.close()
        database.close()
    if done != count:
        raise RuntimeError(f"rclip embedded {done} of {count} pictures")
    return count / seconds


def main() -> None:
    model, *files = sys.argv[1:]
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for file in files:
            # rclip leaves out links
            shutil.copyfile(file, folder / Path(file).name)
        for name, loop in (("clip-retrieval", clip_retrieval), ("rclip", rclip)):
            # What they say themselves is not the answer.
            with contextlib.redirect_stdout(sys.stderr):
                try:
                    found[name] = loop(model, folder, len(files))
                except Exception as error:  # noqa: BLE001 - somebody else's program
                    print(f"{name} is skipped: {type(error).__name__}: {error}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
