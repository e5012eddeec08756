"""Annotations of other tools: COCO, LabelMe, CVAT, YOLO, and color masks become a folder to train on, and back."""
