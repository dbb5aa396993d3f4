"""Sets of classes that cards name, instead of listing them."""

from __future__ import annotations

__all__ = ["CLASS_SETS"]

_TEXTS = {
    "coco80": """person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,
    fire hydrant,stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,
    giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,
    baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,
    knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,
    couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,
    microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,
    toothbrush"""
}

CLASS_SETS = {
    name: tuple(" ".join(part.split()) for part in text.split(",")) for name, text in _TEXTS.items()
}
"""Names of classes by the name of the set."""
