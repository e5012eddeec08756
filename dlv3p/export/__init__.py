"""Networks for other runtimes: ONNX and torch.export files, ONNX Runtime and OpenVINO, in float or 8 bits."""
