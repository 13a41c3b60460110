"""Releasing a candidate: the gate's verdict, its report, its model card and its seal.

The gate must have let this very model pass, against a bundle that is released where it goes, and the report must have measured
it on the same file (equal hashes). The card is written from the manifest and the report, so that it cannot say another figure
than was measured. The bundle that Rasid ships must have passed the whole gate.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from models.bundle import (
    MODEL_FILES,
    RELEASE_FILES,
    RELEASED_DIRECTORY,
    Bundle,
    hash_file,
    load_bundle,
    read_manifest,
    write_manifest,
)
from models.errors import BundleError, InputError
from training.card import model_card

MAX_BUNDLE_BYTES = 60_000_000
_SHIPPED_MARGIN = 0.02  # eval.gate.MARGIN; training may not import eval


def release(
    candidate: Path, report_path: Path, gate_path: Path, destination: Path, *, reduced_report_path: Path | None = None
) -> Path:
    """Copy a candidate to `destination/<name>-<version>`, add report and card, and seal it. Returns the new folder.

    `reduced_report_path` is the report, on the same file, of a model made from the repository alone; the card tells its
    figures. Raises InputError where the gate refused the candidate, or judged or compared with another one, or was made easier
    and the destination is RELEASED_DIRECTORY, where a report measured another model or file, or where the destination exists;
    BundleError where the bundle is too large.
    """
    bundle = load_bundle(candidate, require_seal=False)
    report = _matching_report(bundle, report_path)
    reduced = _reduced_report(reduced_report_path, report) if reduced_report_path else None
    verdict = _passing_gate(bundle, gate_path, report, destination)
    size = sum((candidate / name).stat().st_size for name in MODEL_FILES)
    if size > MAX_BUNDLE_BYTES:
        raise BundleError(f"the bundle has {size / 1e6:.1f} MB, at most {MAX_BUNDLE_BYTES / 1e6:.0f} MB can be released")
    target = destination / f"{bundle.manifest.name}-{bundle.manifest.version}"
    if target.exists():
        raise InputError(f"{target} exists; a release is never overwritten: choose another version")
    partial = target.with_name(target.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in MODEL_FILES:
        shutil.copyfile(candidate / name, partial / name)
    quality = {**summary(report), "gate": verdict}
    (partial / "report.json").write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    unsealed = bundle.manifest.model_copy(update={"quality": quality})
    card = model_card(unsealed, bundle.taxonomy, report, size_bytes=size, reduced=reduced)
    (partial / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    files = {name: hash_file(partial / name) for name in (*MODEL_FILES, *RELEASE_FILES)}
    unsealed = unsealed.model_copy(update={"files": files})
    write_manifest(partial, unsealed.model_copy(update={"seal": unsealed.expected_seal()}))
    load_bundle(partial)
    partial.replace(target)
    return target


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """The figures of a report that the manifest repeats: macro F1 and F1 by label for each slice."""
    return {
        "data": report["data"],
        "data_digest": report["data_digest"],
        "slices": {
            part["name"]: {
                "texts": part["texts"],
                "macro_f1": part["averages"]["macro"]["f1"],
                "f1": {label: found["f1"] for label, found in part["labels"].items()},
            }
            for part in report["slices"]
        },
    }


def _passing_gate(bundle: Bundle, path: Path, report: dict[str, Any], destination: Path) -> dict[str, Any]:
    """What the manifest keeps of a verdict that lets the candidate pass; raises InputError for any other."""
    again = f"run rasid-eval gate {bundle.path} --data {report['data']}"
    try:
        gate: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: gate[key] for key in ("against", "data_digest", "margin", "suites", "passed")}
        kept["checks"] = len(gate["checks"])
        kept["same_model"] = gate["against"] == gate["candidate"]  # the same weights as the release before
        easy = _what_was_easy(gate)
        failed = [check["name"] for check in gate["checks"] if check["verdict"] == "worse"]
        judged = gate["candidate"]
    except FileNotFoundError as error:
        raise InputError(f"expected the gate's verdict at {path}, found none; {again}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a verdict of rasid-eval gate; {again}") from error
    if judged != bundle.manifest.model_hash:
        raise InputError(f"{path} judged the model {judged[:12]}, not {bundle.manifest.model_hash[:12]}; {again}")
    if kept["passed"] is not True or failed:
        raise InputError(f"the gate refused the candidate ({', '.join(failed) or 'nothing could be judged'}); see {path}")
    if kept["data_digest"] != report["data_digest"]:
        raise InputError(f"{path} and the report are of different files; {again}")
    held = {read_manifest(file.parent).model_hash for file in destination.glob("*/manifest.json")}
    if held and kept["against"] not in held:
        raise InputError(f"{path} compared with no bundle that is released in {destination}; {again} --against one of them")
    if easy and destination.resolve() == RELEASED_DIRECTORY.resolve():
        raise InputError(
            f"{path} is no verdict for the bundle that Rasid ships: {', '.join(easy)}; {again} --documents ARTICLES"
        )
    return kept


def _what_was_easy(gate: dict[str, Any]) -> list[str]:
    """What a verdict lacks of the whole gate. A first bundle, with nothing to compare with, is judged on texts alone."""
    first = gate["against"] is None
    lacking = {
        f"its margin {gate['margin']} is above {_SHIPPED_MARGIN}": gate["margin"] > _SHIPPED_MARGIN,
        "it ran no suites": not (first or gate["suites"]),
        "it judged no articles": not (first or gate.get("documents")),  # older verdicts do not tell
    }
    return [what for what, lacks in lacking.items() if lacks]


def _reduced_report(path: Path, report: dict[str, Any]) -> dict[str, Any]:
    try:
        reduced: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        same = reduced["data_digest"] == report["data_digest"] and reduced["model_hash"] != report["model_hash"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"expected a report of rasid-eval run at {path}; {type(error).__name__}") from error
    if not same:
        raise InputError(f"{path} must measure another model on the same file as the candidate's report")
    return reduced


def _matching_report(bundle: Bundle, path: Path) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        measured = report["model_hash"]
    except FileNotFoundError as error:
        raise InputError(f"expected a report at {path}, found none; run rasid-eval run on the candidate") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a report of rasid-eval run") from error
    if measured != bundle.manifest.model_hash:
        raise InputError(
            f"{path} measured the model {measured[:12]}, the candidate is {bundle.manifest.model_hash[:12]}; "
            "run rasid-eval run on the candidate"
        )
    return report
