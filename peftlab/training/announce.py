"""Say that another encoder takes the place of the one that a recipe names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from peftlab.encoders.source import EncoderFiles


def announce_stand_in(files: EncoderFiles, console: Console) -> str:
    """Print, in a box that cannot be missed, which encoder stands in for which, and why; return it as a sentence."""
    from rich.panel import Panel

    text = (
        f"{files.requested} cannot be reached ({files.reason}).\nThis run uses its stand-in {files.used}: its figures "
        f"say nothing of {files.requested}."
    )
    panel = Panel(text, title="STAND-IN ENCODER", border_style="bold yellow", expand=False)
    console.print(panel, soft_wrap=False)  # a console that leaves lines whole would cut them at the border
    return text.replace("\n", " ")
