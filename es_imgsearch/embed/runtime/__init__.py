"""How a model runs: in torch or in ONNX Runtime, exported, selected, measured."""
