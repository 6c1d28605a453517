"""`steadyspike report --crate`: a finished pipeline described for archives, as RO-Crate.

``ro-crate-metadata.json`` follows the profile Workflow Run Crate 0.5: the workflow is ``dvc.yaml``,
its run is what ``dvc.lock`` records, one action a stage, and every number in the report's tables is
a value with the commit, the parameters and the command that it came from. The folder with this
file in it can be archived as it is.
"""

import datetime
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from steadyspike import __version__, commit
from steadyspike.errors import UserError
from steadyspike.files import write_atomically
from steadyspike.report.results import Results
from steadyspike.report.runs import Pipeline, Run
from steadyspike.report.write import report_tables
from steadyspike.train.params import read_yaml

NAME = "ro-crate-metadata.json"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
FORMAL_PARAMETER = "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"
WORKFLOW = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
AUTHORS = "#authors"
FORMATS = {
    **{".csv": "text/csv", ".json": "application/json", ".md": "text/markdown"},
    **{".yaml": "application/yaml", ".cff": "application/yaml"},
    ".safetensors": "application/octet-stream",
}
LICENCE = "https://spdx.org/licenses/MIT"
Entity = dict[str, Any]


def write_crate(pipeline: Path) -> Path:
    """Write the description of a pipeline beside its ``dvc.lock``; returns the file's path.

    Args:
        pipeline: the folder of its params.yaml. Pipelines below pipelines/ share one dvc.lock.

    Raises:
        UserError: nothing was run; a file is missing or is not the one that dvc.lock records; a
            result is malformed or of other parameters. Nothing is written.
    """
    root = pipeline if (pipeline / "dvc.yaml").exists() else pipeline.parent
    stages = _stages(root, "" if root == pipeline else f"{pipeline.name}/")
    results = Results.of_pipeline(pipeline)
    results.check_current()
    graph = _graph(root, stages, results)
    content = {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": [*graph]}
    write_atomically(root / NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return root / NAME


def _stages(root: Path, prefix: str) -> dict[str, Any]:
    """The stages in dvc.lock that made something below ``prefix``, their files checked."""
    lock = root / "dvc.lock"
    if not lock.exists():
        raise UserError(f"{lock}: not found: run the pipeline with `dvc repro` first")
    content = read_yaml(lock)
    stages = content.get("stages") if isinstance(content, dict) else None
    if not isinstance(stages, dict):
        raise UserError(f"{lock}: stages: expected the stages that DVC has run")
    chosen = {
        name: stage
        for name, stage in stages.items()
        if any(file["path"].startswith(prefix) for file in stage.get("outs", []))
    }
    for stage in chosen.values():
        for file in stage.get("outs", []):
            _check(root / file["path"], file.get("md5", ""))
    if not chosen:
        raise UserError(f"{lock}: stages: none of {prefix or 'them'} has run")
    return chosen


def _check(path: Path, md5: str) -> None:
    """UserError if a stage's output is not the one that was recorded; of a folder, if missing."""
    if not path.exists():
        raise UserError(f"{path}: not found: fetch it with `dvc pull`, or run `dvc repro`")
    if path.is_file() and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != md5:
        raise UserError(f"{path}: not the file that dvc.lock records: run `dvc repro`")


def _graph(root: Path, stages: dict[str, Any], results: Results) -> Iterator[Entity]:
    pipeline = results.only
    files = {
        file["path"]: file
        for stage in stages.values()
        for file in [*stage.get("deps", []), *stage.get("outs", [])]
    }
    outputs = [file["path"] for stage in stages.values() for file in stage.get("outs", [])]
    # The folder `runs`, an input of the report, holds outputs of the stages before.
    files = {
        path: file for path, file in files.items() if path in outputs or not _above(path, outputs)
    }
    settings = str((pipeline.folder / "params.yaml").relative_to(root))
    inputs = [*(path for path in files if path not in outputs), settings]
    others = [path for path in ("README.md", "CITATION.cff", "LICENSE") if (root / path).exists()]
    # Records of what was measured elsewhere, on a GPU
    others += sorted(path.relative_to(root).as_posix() for path in (root / "docs/runs").glob("*.*"))
    version = commit.describe() or "not known"
    cells = list(_cells(results, version))
    actions = [*map(_stage_id, stages), "#run"]

    yield {
        "@id": NAME,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": _ids(["https://w3id.org/ro/crate/1.1", list(PROFILES)[-1]]),
    }
    yield {
        "@id": "./",
        "@type": "Dataset",
        "name": f"steadyspike: {pipeline.folder.resolve().name}",
        "description": "Online training of spiking neural networks: a pipeline and its results",
        "datePublished": commit.date() or datetime.datetime.now(datetime.UTC).date().isoformat(),
        "license": {"@id": LICENCE},
        "author": {"@id": AUTHORS},
        "publisher": {"@id": AUTHORS},
        "conformsTo": _ids(PROFILES),
        "hasPart": _ids(_file_id(root, path) for path in ("dvc.yaml", *files, settings, *others)),
        "mainEntity": {"@id": "dvc.yaml"},
        "mentions": _ids([*actions, *(cell["@id"] for cell in cells)]),
    }
    for uri, name in PROFILES.items():
        yield {"@id": uri, "@type": "CreativeWork", "name": name, "version": uri.split("/")[-1]}
    yield {"@id": LICENCE, "@type": "CreativeWork", "name": "MIT"}
    yield {"@id": AUTHORS, "@type": "Organization", "name": "The steadyspike authors"}
    yield from _workflow(root, inputs, outputs, version)
    for path in (*files, settings):
        yield _file(root, path, files) | {"exampleOfWork": {"@id": _parameter_id(path)}}
    for path in others:
        about = {"about": {"@id": "./"}} if path not in ("CITATION.cff", "LICENSE") else {}
        yield _file(root, path, files) | about
    yield from _actions(root, stages, pipeline, inputs, outputs)
    yield from cells


def _workflow(root: Path, inputs: list[str], outputs: list[str], version: str) -> Iterator[Entity]:
    yield {
        "@id": "dvc.yaml",
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        "name": "dvc.yaml",
        "conformsTo": {"@id": WORKFLOW},
        "version": version,
        "encodingFormat": "application/yaml",
        "programmingLanguage": {"@id": "https://dvc.org"},
        "license": {"@id": LICENCE},
        "input": _ids(map(_parameter_id, inputs)),
        "output": _ids(map(_parameter_id, outputs)),
    }
    yield {
        "@id": "https://dvc.org",
        "@type": "ComputerLanguage",
        "name": "DVC pipeline",
        "alternateName": "DVC",
        "identifier": {"@id": "https://dvc.org"},
        "url": {"@id": "https://dvc.org"},
    }
    yield {
        "@id": "#steadyspike",
        "@type": "SoftwareApplication",
        "name": "steadyspike",
        "softwareVersion": f"{__version__}, commit {version}",
    }
    for path in (*inputs, *outputs):
        yield {
            "@id": _parameter_id(path),
            "@type": "FormalParameter",
            "name": path,
            "additionalType": "Dataset" if (root / path).is_dir() else "File",
            "conformsTo": {"@id": FORMAL_PARAMETER},
            "workExample": {"@id": _file_id(root, path)},
        }
    for profile in (FORMAL_PARAMETER, WORKFLOW):
        yield {"@id": profile, "@type": "CreativeWork", "name": profile.split("/")[-2]}


def _actions(
    root: Path, stages: dict[str, Any], pipeline: Pipeline, inputs: list[str], outputs: list[str]
) -> Iterator[Entity]:
    def action(
        key: str, name: str, command: str, tool: str, used: Iterable[str], outs: Iterable[str]
    ) -> Entity:
        return {
            "@id": key,
            "@type": "CreateAction",
            "name": name,
            "description": command,
            "instrument": {"@id": tool},
            "object": _ids(used),
            "result": _ids(_file_id(root, path) for path in outs),
            "actionStatus": "http://schema.org/CompletedActionStatus",
        }

    files = [_file_id(root, path) for path in inputs]
    yield action("#run", "run of dvc.yaml", "dvc repro", "dvc.yaml", files, outputs)
    folders = {f"{run.folder.relative_to(root).as_posix()}/": run for run in pipeline.runs}
    for name, stage in stages.items():
        outs = [file["path"] for file in stage.get("outs", [])]
        deps = [file["path"] for file in stage.get("deps", []) if not _above(file["path"], outputs)]
        runs = [run for folder, run in folders.items() if any(o.startswith(folder) for o in outs)]
        used = [*(_file_id(root, path) for path in deps), *map(_parameters_id, runs)]
        command = stage.get("cmd", "")
        command = command if isinstance(command, str) else " && ".join(command)
        yield action(_stage_id(name), name, command, "#steadyspike", used, outs)
    for run in pipeline.runs:
        yield {
            "@id": _parameters_id(run),
            "@type": "PropertyValue",
            "name": f"parameters of {run.name}",
            "propertyID": "SHA-256 of the parameters",
            "value": run.settings.runs[0].fingerprint(),
            "description": json.dumps(run.settings.decisive(), sort_keys=True),
        }


def _cells(results: Results, version: str) -> Iterator[Entity]:
    """Every number of an experiment in a table, with commit, parameters and command."""
    runs = {run.name: run for run in results.only.runs}
    for table in report_tables(results):
        keys = [column.key for column in table.columns]
        if "experiment" not in keys:
            continue
        counts: dict[str, int] = {}
        for row in table.rows:
            run = runs.get(str(row[keys.index("experiment")]))
            if run is None or run.metrics is None:
                continue
            place = counts[run.name] = counts.get(run.name, 0) + 1
            for column, value in zip(table.columns, row, strict=True):
                if isinstance(value, str) or not column.numeric:
                    continue
                yield {
                    "@id": f"#{table.name}/{quote(run.name)}/{place}/{column.key}",
                    "@type": "PropertyValue",
                    "name": f"{table.title}: {run.label}: {column.header}",
                    "propertyID": f"{table.name}.{column.key}",
                    "value": column.number(value),
                    "measurementTechnique": run.command,
                    "version": version,
                    "valueReference": {"@id": _parameters_id(run)},
                }


def _file(root: Path, path: str, recorded: dict[str, Any]) -> Entity:
    """A file or folder, with its MD5 if it is among those ``recorded`` in dvc.lock."""
    place = root / path
    entity: Entity = {
        "@id": _file_id(root, path),
        "@type": "Dataset" if place.is_dir() else "File",
        "name": path,
    }
    if md5 := recorded.get(path, {}).get("md5"):
        entity["identifier"] = f"md5:{md5}"
    if place.is_file():
        entity["contentSize"] = str(place.stat().st_size)
        entity["encodingFormat"] = FORMATS.get(place.suffix, "text/plain")
    return entity


def _file_id(root: Path, path: str) -> str:
    return quote(path) + ("/" if (root / path).is_dir() else "")


def _parameter_id(path: str) -> str:
    """Of a file that the workflow takes or makes, by its role."""
    return f"#parameter/{quote(path)}"


def _stage_id(name: str) -> str:
    return f"#stage/{quote(name)}"


def _parameters_id(run: Run) -> str:
    """Of the parameters that a run was trained with."""
    return f"#parameters/{quote(run.name)}"


def _above(path: str, others: Iterable[str]) -> bool:
    """Whether it is a folder that holds some of these."""
    return any(each.startswith(path + "/") for each in others)


def _ids(names: Iterable[str]) -> list[Entity] | Entity:
    """References to entities, each once; a single one stands alone."""
    references = [{"@id": name} for name in dict.fromkeys(names)]
    return references[0] if len(references) == 1 else references
