"""Checkpoints from which an interrupted run resumes, and parameters in a file for other programs.

``save`` and ``restore`` keep the state of a training run in a directory; ``fit(..., checkpoint=directory)`` calls both
automatically. See ``fnn.checkpoint.directory`` for its contents. ``export`` and ``load`` write and read a single
safetensors file; see ``fnn.checkpoint.safetensors`` for its layout. Nothing is pickled.
"""

from fnn.checkpoint.directory import Checkpoint, restore, save
from fnn.checkpoint.safetensors import export, load

__all__ = ["export", "load", "save", "restore", "Checkpoint"]  # as the site lists them
