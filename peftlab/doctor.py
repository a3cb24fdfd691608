"""`peftlab doctor`: what this machine has, what is missing, and the line that installs it."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peftlab.errors import UserError
from peftlab.programs import quiet_libraries, run_program

HUB_TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True)
class Missing:
    """A package that is not here, or too old: what needs it, and the line that brings it."""

    package: str
    needed_for: str
    install: str


@dataclass(frozen=True)
class Hub:
    """Whether the model hub answers. `reason` says why not."""

    endpoint: str
    reachable: bool
    reason: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """All that `peftlab doctor` found. Memory in bytes; `packages` has None for those that are absent.

    `cpu_run`: None where a training step on this CPU works, else why it does not. `cpu_steps`: how such steps are made.
    """

    peftlab: str
    python: str
    system: str
    packages: dict[str, str | None]
    devices: list[str]
    cores: dict[str, int]
    memory: dict[str, int]
    fast_bf16: bool | None
    cpu_steps: str
    hub: Hub
    data_folder: dict[str, Any]
    encoders: dict[str, bool]
    missing: list[Missing]
    cpu_run: str | None


def main(argv: Sequence[str] | None = None) -> int:
    """Print the diagnosis to standard output; returns 0 where a CPU run works, 2 where a package lacks, else 1."""
    asked = parser().parse_args(argv)
    return run_program(lambda: _report(as_json=asked.json))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab doctor`."""
    made = argparse.ArgumentParser(
        prog="peftlab doctor",
        description="Say what this machine has for peftlab: versions, devices, cores, memory, the hub, data and\n"
        "bundled encoders; then what is missing and the line that installs it.",
        epilog="example: peftlab doctor --json\n\n"
        "exit codes: 0 a run on the CPU works, 2 a required package is missing (its install line is printed),\n"
        "1 the packages are there and a training step fails all the same",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return made


def diagnose() -> Diagnosis:
    """Look at this machine. Nothing found here is an error, and an unreachable hub costs a few seconds at most."""
    required, optional = requirements()
    missing = missing_packages(required, optional)
    cpu_run = _cpu_step() if not any(one.needed_for == "every run" for one in missing) else "a required package lacks"
    torch_works = cpu_run is None
    return Diagnosis(
        peftlab=importlib.metadata.version("peftlab"),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        packages={name: installed_version(name) for name in (*required, *optional)},
        devices=_devices() if torch_works else [],
        cores=_cores(),
        memory=_memory(),
        fast_bf16=_fast_bf16() if torch_works else None,
        cpu_steps=_cpu_steps() if torch_works else "unknown",
        hub=hub_state(),
        data_folder=data_folder(),
        encoders=_encoders(),
        missing=missing,
        cpu_run=cpu_run,
    )


def requirements() -> tuple[dict[str, str], dict[str, str]]:
    """Return peftlab's own requirements: each required one with its version range, each optional one with its extra.

    Raises UserError where peftlab runs from a folder without being installed, so that nothing states them.
    """
    required: dict[str, str] = {}
    optional: dict[str, str] = {}
    try:
        lines = importlib.metadata.requires("peftlab") or []
    except importlib.metadata.PackageNotFoundError:
        folder = Path(__file__).resolve().parents[1]
        raise UserError(
            f"peftlab runs from {folder} without being installed, so that its requirements are not known; run: "
            f"pip install -e {folder}"
        ) from None
    for line in lines:
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        match = re.match(r"([A-Za-z0-9._-]+)\s*(.*)", requirement)
        extra = re.search(r"extra == ['\"]([^'\"]+)", marker)
        if match is None or (extra and extra[1] == "dev"):
            continue
        if extra:
            optional[match[1]] = extra[1]
        else:
            required[match[1]] = match[2]
    return required, optional


def missing_packages(required: dict[str, str], optional: dict[str, str]) -> list[Missing]:
    """Return what is not installed or outside its range, required packages first."""
    from packaging.specifiers import SpecifierSet

    found = []
    for name, versions in required.items():
        installed = installed_version(name)
        if installed is None or not SpecifierSet(versions).contains(installed, prereleases=True):
            found.append(Missing(name, "every run", f'pip install "{name}{versions}"'))
    for name, extra in optional.items():
        if installed_version(name) is None:
            found.append(Missing(name, f"the extra '{extra}'", f'pip install "peftlab[{extra}]"'))
    return found


def installed_version(name: str) -> str | None:
    """Return the installed version of a distribution, without importing it; None where it is absent."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def hub_state() -> Hub:
    """Ask the hub for its first page, with a short timeout; says why where it does not answer."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Hub(endpoint, reachable=False, reason="HF_HUB_OFFLINE is set")
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_SECONDS):
            return Hub(endpoint, reachable=True)
    except urllib.error.HTTPError as error:
        return Hub(endpoint, reachable=error.code < 500, reason=f"it answers {error.code}")
    except (OSError, ValueError) as error:
        return Hub(endpoint, reachable=False, reason=str(getattr(error, "reason", error)))


def data_folder() -> dict[str, Any]:
    """Return where PEFTLAB_DATA points, whether that is a folder, and the named sets in it."""
    value = os.environ.get("PEFTLAB_DATA")
    folder = Path(value).expanduser() if value else None
    exists = folder is not None and folder.is_dir()
    sets = sorted({file.parent.name for file in folder.glob("*/train.jsonl*")}) if folder and exists else []
    return {"PEFTLAB_DATA": value, "exists": exists, "sets": sets}


def _cpu_step() -> str | None:
    """Take one LoRA step of a linear layer on the CPU; return None where it works, else the reason."""
    quiet_libraries()
    try:
        import torch
        import transformers  # noqa: F401
        from peft import LoraConfig, get_peft_model

        layer = get_peft_model(torch.nn.Sequential(torch.nn.Linear(8, 8)), LoraConfig(target_modules=["0"]))
        layer(torch.ones(2, 8)).square().mean().backward()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _devices() -> list[str]:
    import torch

    found = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def _cores() -> dict[str, int]:
    from peftlab.training.placement import usable_cores

    return {"machine": os.cpu_count() or 1, "usable": usable_cores()}


def _memory() -> dict[str, int]:
    if installed_version("psutil") is None:
        return {}
    import psutil

    memory = psutil.virtual_memory()
    return {"total": memory.total, "available": memory.available}


def _fast_bf16() -> bool:
    import torch

    from peftlab.training.placement import multiplies_bf16_fast

    return multiplies_bf16_fast(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _cpu_steps() -> str:
    from peftlab.training.compiled import why_not

    missing = why_not()
    return "compiled" if missing is None else f"torch's and numpy's, which take longer: {missing}"


def _encoders() -> dict[str, bool]:
    from peftlab.encoders.bundled import BUNDLED

    return {f"bundled:{name}": encoder.present() for name, encoder in BUNDLED.items()}


def _report(*, as_json: bool) -> int:
    found = diagnose()
    print(json.dumps(asdict(found), ensure_ascii=False) if as_json else as_text(found))
    if found.cpu_run is None:
        return 0
    return 2 if any(one.needed_for == "every run" for one in found.missing) else 1


def as_text(found: Diagnosis) -> str:
    """Return the diagnosis for people, one fact a line."""
    gib = {name: f"{value / 2**30:.1f} GiB" for name, value in found.memory.items()}
    fast = {True: "fast, so train.precision 'auto' means bf16", False: "slow, so train.precision 'auto' means fp32"}
    hub = "reachable" if found.hub.reachable else f"not reachable ({found.hub.reason})"
    facts = {
        "peftlab": f"{found.peftlab}, Python {found.python}, {found.system}",
        **{name: version or "-" for name, version in found.packages.items()},
        "devices": ", ".join(found.devices) or "unknown",
        "cores": f"{found.cores['usable']} usable of {found.cores['machine']}",
        "memory": f"{gib['available']} free of {gib['total']}" if gib else "unknown",
        "bf16": fast[found.fast_bf16] if found.fast_bf16 is not None else "unknown",
        "CPU steps": found.cpu_steps,
        "hub": f"{found.hub.endpoint} {hub}",
        "PEFTLAB_DATA": _data_text(found.data_folder),
        **{name: "installed" if present else "not installed" for name, present in found.encoders.items()},
    }
    width = max(map(len, facts))
    lines = [f"{name:<{width}}  {value}" for name, value in facts.items()]
    lines += ["", *(f"missing: {one.package}, needed for {one.needed_for}: {one.install}" for one in found.missing)]
    lines.append(
        "A run on the CPU works." if found.cpu_run is None else f"A run on the CPU does not work: {found.cpu_run}"
    )
    return "\n".join(lines)


def _data_text(data: dict[str, Any]) -> str:
    if data["PEFTLAB_DATA"] is None:
        return "not set; named data sets come from the hub"
    if not data["exists"]:
        return f"{data['PEFTLAB_DATA']} is no folder"
    return f"{data['PEFTLAB_DATA']}: {', '.join(data['sets']) or 'no sets in it'}"


if __name__ == "__main__":
    sys.exit(main())
