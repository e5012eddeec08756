"""The networks: DeepLabV3 and DeepLabV3+, their backbones, norms and upsampling."""
