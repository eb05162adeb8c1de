"""Checkpoints of a run, from which it goes on after anything, and parameters in a file for other programs.

``save`` and ``restore`` keep the state of a training run in a directory, ``fit(..., checkpoint=directory)`` does
both by itself: see ``fnn.checkpoint.directory`` for what is in it. ``export`` and ``load`` write and read one
safetensors file: see ``fnn.checkpoint.safetensors`` for its layout. Nothing here is a pickle.
"""

from fnn.checkpoint.directory import Checkpoint, restore, save
from fnn.checkpoint.safetensors import export, load

__all__ = ["Checkpoint", "export", "load", "restore", "save"]
