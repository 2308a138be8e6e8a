"""Segment an image with an exported model, without torch: python deploy_onnx.py model.onnx photo.jpg mask.png."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model, source, target = sys.argv[1:4]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
facts = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
picture = ImageOps.exif_transpose(Image.open(source)).convert("RGB")  # for a model of 8-bit RGB images
size = picture.size
if facts["image_size"]:  # resize as in training
    picture = picture.resize(facts["image_size"][::-1], Image.Resampling.BILINEAR)
image = np.asarray(picture).transpose(2, 0, 1)[None]
height, width = image.shape[2:]
tall, wide = facts["window"] or (height, width)  # a fixed-size model processes the image in windows
labels = np.zeros((height, width), np.uint8)
for top in range(0, height, tall):
    for left in range(0, width, wide):
        part = image[:, :, top : top + tall, left : left + wide]
        high, long = part.shape[2:]
        missing = np.maximum(np.maximum(facts["least_size"], (tall, wide)) - (high, long), 0)
        padded = np.pad(part, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])), mode="edge")
        (found,) = session.run(["labels"], {"image": padded})
        labels[top : top + tall, left : left + wide] = found[0, :high, :long]
mask = Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)
if facts["colours"]:
    mask.putpalette([value for colour in facts["colours"] for value in colour])
mask.save(target)
print(f"{target}:", *(f"{facts['classes'][k]} {100 * (labels == k).mean():.1f} %," for k in np.unique(labels)))
