"""DeepLabV3 and DeepLabV3+: backbones, heads, norms, and upsampling."""
