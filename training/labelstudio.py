"""Label Studio: passages out as tasks with a labelling form, annotations back as labelled examples.

Reads what Label Studio exports as JSON (`[{"data": …, "annotations": [{"completed_by", "was_cancelled", "result": […]}]}]`) and
as JSON-MIN (one flat row an annotation). JSON-MIN puts Label Studio's own number in the place of `id`; tasks therefore carry
the passage's id a second time, as `passage_id`. Source of the formats: Label Studio's converter (label_studio_sdk.converter).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml  # only builds: nothing foreign is parsed

from models.errors import ExampleFormatError
from models.example import LabelledExample
from models.taxonomy import Taxonomy

LABELS = "labels"
UNSURE = "unsure"
_UNSURE_NAME = "Unsure / غير متأكد"
_HEADER = "Which of these does the text say? None: submit as it is. / ماذا يقول النص؟ إن لم يكن شيئًا من هذا فأرسله كما هو."
# `unicode-bidi: plaintext` is what dir="auto" means in CSS; a View of Label Studio takes no `dir`.
_STYLE = ".rasid-text * { unicode-bidi: plaintext; text-align: start; line-height: 1.8; }"


@dataclass(frozen=True, slots=True)
class _Annotation:
    """One annotator's choices in one task."""

    where: str
    data: dict[str, Any]
    annotator: str
    choices: tuple[str, ...]


def task(passage: dict[str, Any]) -> dict[str, Any]:
    """The task of a passage (`id`, `lang`, `text`, `source`, `chosen`; `probabilities` where it is to be shown)."""
    data = {name: passage[name] for name in ("id", "lang", "text", "source", "chosen")}
    data["passage_id"] = passage["id"]
    if "probabilities" in passage:
        data["probabilities"] = ", ".join(f"{label} {value:.2f}" for label, value in passage["probabilities"].items())
    return {"data": data}


def labelling_config(taxonomy: Taxonomy, *, show_probabilities: bool = False) -> str:
    """The XML of the labelling form: the text in its own direction, a box for each label, and one for doubt."""
    view = Xml.Element("View")
    Xml.SubElement(view, "Style").text = _STYLE
    around = Xml.SubElement(view, "View", className="rasid-text")
    Xml.SubElement(around, "Text", name="text", value="$text", selectionEnabled="false")
    if show_probabilities:
        Xml.SubElement(view, "Text", name="probabilities", value="$probabilities", selectionEnabled="false")
    Xml.SubElement(view, "Header", value=_HEADER)
    boxes = Xml.SubElement(view, "Choices", name=LABELS, toName="text", choice="multiple")
    for label in taxonomy.labels:
        hint = " ".join(label.definition.values())
        Xml.SubElement(boxes, "Choice", value=" / ".join(label.name.values()), alias=label.id, hint=hint)
    doubt = Xml.SubElement(view, "Choices", name=UNSURE, toName="text", choice="multiple")
    Xml.SubElement(doubt, "Choice", value=_UNSURE_NAME, alias=UNSURE)
    Xml.indent(view)
    return Xml.tostring(view, encoding="unicode") + "\n"


def read_export(path: Path, taxonomy: Taxonomy) -> list[LabelledExample]:
    """One labelled example for each annotation of a JSON or JSON-MIN export; `extra` has `annotator`, `chosen` and `where`.

    Cancelled annotations, drafts and tasks without annotation are left out; of several annotations of one task by one
    annotator the newest counts. Raises ExampleFormatError where the file is no such export or has no annotation, where a
    choice is not of the taxonomy, or where the form had no control `labels`.
    """
    meaning = _meaning_of_choices(taxonomy)
    examples = []
    for one in _annotations(path):
        unknown = [choice for choice in one.choices if choice not in meaning]
        if unknown:
            raise ExampleFormatError(
                f"{one.where}: unknown choice {unknown[0]!r}; expected {', '.join(taxonomy.label_ids)} or {UNSURE}"
            )
        chosen = {meaning[choice] for choice in one.choices}
        number = one.data.get("id") or one.where.rpartition(":")[2]
        fallback = f"{path.name}:{number}" if "annotation_id" in one.data or "id" not in one.data else number
        example = LabelledExample(
            id=str(one.data.get("passage_id") or fallback),
            text=one.data["text"],
            labels=frozenset(chosen - {UNSURE}),
            lang=str(one.data.get("lang") or ""),
            source=str(one.data.get("source") or ""),
            unsure=UNSURE in chosen,
            extra={"annotator": one.annotator, "chosen": str(one.data.get("chosen") or ""), "where": one.where},
        )
        examples.append(example)
    if not examples:
        raise ExampleFormatError(f"{path}: expected annotations, the export has none that was submitted")
    return examples


def read_data(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where it stands and the data (with its `text`) of every task of a task file or export, annotated or not."""
    for where, row in _tasks(path):
        yield where, _data(row, where)


def _tasks(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        raise ExampleFormatError(f"{path}: expected an export of Label Studio, found none")
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ExampleFormatError(f"{path}: expected UTF-8, byte {error.start} is not; export it again") from None
    except json.JSONDecodeError as error:
        raise ExampleFormatError(
            f"{path}:{error.lineno}: expected JSON, {error.msg}; name a file of JSON lines .jsonl"
        ) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ExampleFormatError(f"{path}: expected a list of tasks, as Label Studio exports JSON and JSON-MIN")
    for number, row in enumerate(rows, 1):
        yield f"{path}:task {number}", row


def _data(row: dict[str, Any], where: str) -> dict[str, Any]:
    data = row.get("data", row)
    if not isinstance(data, dict) or not isinstance(data.get("text"), str):
        raise ExampleFormatError(f"{where}: expected data with a field 'text'; the task was not made by rasid-train sample")
    return data


def _annotations(path: Path) -> list[_Annotation]:
    """The annotations of an export that count, in its order."""
    newest: dict[tuple[object, str], tuple[str, _Annotation]] = {}
    controls: set[str] = set()
    flat = False
    for number, (where, row) in enumerate(_tasks(path)):
        data = _data(row, where)
        if "data" in row:
            task_number: object = number
            annotations = _list(row.get("annotations"), where)
        else:
            flat = True
            task_number = row.get("id", number)
            annotations = [] if row.get("annotation_id") is None else [row]
        for place, annotation in enumerate(annotations, 1):
            if annotation.get("was_cancelled") or annotation.get("skipped"):
                continue
            by_control = _choices_by_control(annotation, where)
            controls |= set(by_control)
            name = _name(annotation.get("annotator" if flat else "completed_by"), place)
            time = str(annotation.get("updated_at") or annotation.get("created_at") or "")
            choices = (*by_control.get(LABELS, ()), *by_control.get(UNSURE, ()))
            if time >= newest.get((task_number, name), ("", None))[0]:
                newest[task_number, name] = time, _Annotation(where, data, name, choices)
    # Without this a form with a control of another name would come back as passages without labels.
    if newest and LABELS not in controls and (flat or controls - {UNSURE}):
        got = ", ".join(sorted(controls - {UNSURE})) or "none"
        raise ExampleFormatError(
            f"{path}: expected choices of a control named {LABELS!r}, got {got}; use the form that rasid-train sample writes "
            "(and, where not one passage carries a label, export as JSON instead of JSON-MIN)"
        )
    return [one for _time, one in newest.values()]


def _choices_by_control(annotation: dict[str, Any], where: str) -> dict[str, tuple[str, ...]]:
    """The names chosen in each control of an annotation, or, of a row of JSON-MIN, in the two that we know."""
    if "annotation_id" in annotation:
        return {name: _flat(annotation[name], where) for name in (LABELS, UNSURE) if name in annotation}
    found: dict[str, tuple[str, ...]] = {}
    for result in _list(annotation.get("result"), where):
        if result.get("type") == "choices":
            name = str(result.get("from_name"))
            found[name] = (*found.get(name, ()), *_flat(result.get("value"), where))
    return found


def _meaning_of_choices(taxonomy: Taxonomy) -> dict[str, str]:
    """Label id, or `unsure`, by everything that a choice may be called: the alias, or the name shown."""
    meaning = {UNSURE: UNSURE, _UNSURE_NAME: UNSURE}
    for label in taxonomy.labels:
        for name in (label.id, *label.name.values(), " / ".join(label.name.values())):
            meaning[name] = label.id
    return meaning


def _flat(value: object, where: str) -> tuple[str, ...]:
    """The choices in a value of either export: a name, a list of values, or an object with `choices`; None has none."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        return tuple(choice for part in value for choice in _flat(part, where))
    if isinstance(value, dict):
        return _flat(value.get("choices"), where)
    raise ExampleFormatError(f"{where}: expected choices to be names, got {type(value).__name__}")


def _list(value: object, where: str) -> list[dict[str, Any]]:
    rows = [] if value is None else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ExampleFormatError(f"{where}: expected annotations and results to be lists of objects; export as JSON again")
    return rows


def _name(annotator: object, number: int) -> str:
    """What an annotator is called: the address or number that the export gives, else the annotation's place in the task."""
    if isinstance(annotator, dict):
        annotator = annotator.get("email") or annotator.get("id")
    return f"#{number}" if annotator is None or annotator == "" else str(annotator)
