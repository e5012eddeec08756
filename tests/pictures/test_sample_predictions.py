"""Sample predictions during a training say in each title what is shown, in the room that there is."""

import torch
from PIL import Image

from dlv3p.data.roots import open_split
from dlv3p.pictures import gallery


def test_the_titles_of_sample_predictions_are_drawn_whole(city, monkeypatch):
    """The name, which may be long, stands once a row; a title that is cut off would be drawn with an ellipsis."""
    monkeypatch.setattr(gallery.SamplePredictions, "_display", lambda *_: None)
    drawn = []
    arrange = gallery.side_by_side
    monkeypatch.setattr(
        gallery, "side_by_side", lambda panels, **how: drawn.append(list(panels)) or arrange(panels, **how)
    )
    split = open_split(city, "val")
    samples = gallery.SamplePredictions(split, count=2)
    for _ in range(12):
        for index in samples.indices:
            samples.look(index, torch.zeros(1, 64, 128, dtype=torch.int64))
    assert isinstance(samples.picture(), Image.Image)
    first, last = split.name(0), split.name(2)
    assert drawn[-1] == [
        *(f"1. {first}", "1. prediction, validation 12", "1. truth"),
        *(f"2. {last}", "2. prediction, validation 12", "2. truth"),
    ]
