"""The model card: what a released model is, what it was trained on, what it reaches and what it must not be used for."""

from __future__ import annotations

from typing import Any

from models.bundle import Manifest
from models.taxonomy import Taxonomy

# Sources of the labelled and annotated real text, with the licence their collection states; no text is distributed.
SOURCES = (
    ("ans_claims", "latynt/ans, Arabic news titles of 2018", "Apache-2.0"),
    (
        "ant_bbc, ant_cnn, ant_france24, ant_skynews, ant_jawharafm",
        "antcorpus, Arabic news of 2015-2018",
        "Apache-2.0 and a citation licence; articles belong to the outlets",
    ),
    ("ceha", "dataminr-ai/CEHA, conflict events in the Horn of Africa", "unstated"),
    ("conflibert_*", "eventdata/ConfliBERT: CAMEO leads, InSight Crime, SATP notes, BBC News", "unstated"),
    (
        "fa_kes",
        "FA-KES, articles on the Syrian war",
        "unstated in the copy used; CC BY 4.0 in the original release, by a third party's card",
    ),
    ("fignews", "CAMeL-Lab/FIGNEWS-2024, posts in Arabic and English", "MIT"),
    ("india_police_events", "slanglab/IndiaPoliceEvents, Times of India 2002", "unstated"),
    ("internal_displacement", "Data4Democracy/internal-displacement", "unstated"),
    ("masakhanews", "masakhane-io/masakhane-news, English part", "unstated"),
    ("ntrex", "MicrosoftTranslator/NTREX, newstest2019 in both languages", "CC BY-SA 4.0"),
    (
        "wikipedia_frontlines",
        "Wikipedia articles on wars in Syria, Iraq and Ukraine",
        "unstated in the copy used; Wikipedia is CC BY-SA",
    ),
)

# Sources of test passages alone: no row of theirs is trained on.
TEST_SOURCES = (
    ("saudinewsnet", "parallelfold/SaudiNewsNet, Saudi newspapers of 2015", "CC BY-NC-SA 4.0"),
    ("armpro", "MaramHasanain/ArMPro, paragraphs of Arabic outlets", "CC BY-NC-SA 4.0"),
    ("ud_gum", "UniversalDependencies/UD_English-GUM, news, speech and interviews", "CC BY-NC-SA 4.0"),
)

_OWN_DATA = "real.train.jsonl"  # the data of the model that Rasid ships; another model's card says nothing of its sources
SHIPPED_LIMIT = """- Labels were set by single careful readings; two readers gave the same labels to 98 of 100 passages (F1 between them 0.80 to 1.00
  by label, language and round: `training/annotations/README.md`) and share blind spots.
- Rare labels rest on few examples, in English calls for accountability and sectarian violence: see support and intervals above.
- Dialect is a small part of the training text, none of it read by a native speaker of each; Iraqi and Sudanese are answered worst
  (above). Arabizi is absent.
- Plain sentences can still be missed: "وفرّت مئتا عائلة من الحي في الليلة نفسها." (two hundred families fled the quarter that
  night) gets a probability of displacement of .19, "نزحت عشرات العائلات من الحي في الليلة نفسها." (tens of families) .96. The
  review band guards the precision of what is decided; it does not catch every miss.
- What did not happen is still taken for what did where the sentence is less plain: "No family was displaced." gets a probability of
  displacement of .04, but "The rumour that Yazidi villagers had been killed proved false." one of sectarian violence of .60
  (these probabilities: `rasid classify TEXT --granularity passage`).
"""


def model_card(
    manifest: Manifest,
    taxonomy: Taxonomy,
    report: dict[str, Any],
    *,
    size_bytes: int,
    reduced: dict[str, Any] | None = None,
) -> str:
    """The model card in Markdown, every figure from the manifest or a report.

    `reduced` is the report of a model trained from the repository alone, on the same texts.
    """
    training = manifest.training
    parity = training["parity"]
    settings = ", ".join(f"{key} {value}" for key, value in training["settings"].items() if key != "seed")
    noise = training.get("noise")
    if noise:
        settings += "; share of texts with noise: " + ", ".join(f"{key} {value}" for key, value in noise.items())
    if "averaged" in training:
        settings = "those of each network below"
    own = {name: digest for name, digest in manifest.data.items() if name.startswith(("ar-", "en-"))}
    standoff = {name: digest for name, digest in manifest.data.items() if name.startswith("pool-")}
    articles = sum(name.startswith("articles/") for name in manifest.data)
    corrections = sum(name.startswith("corrections/") for name in manifest.data)
    others = len(manifest.data) - len(own) - len(standoff) - articles - corrections
    labels = "\n".join(f"- **{label.name['en']}** (`{label.id}`): {label.definition['en']}" for label in taxonomy.labels)
    digests = "\n".join(f"| `{name}` | `{digest[:16]}` |" for name, digest in sorted(manifest.data.items()))
    shipped = _OWN_DATA in manifest.data
    sources = _sources(report) if shipped else ""
    return f"""# {manifest.name} {manifest.version}

A multilingual transformer that reads a passage of Arabic or English text and gives four independent labels, each with a
calibrated probability. It is exported to ONNX with int8 matrix products ({size_bytes / 1e6:.1f} MB without report and card) and made for Rasid's
`Classifier`, which prepares the text, calibrates and decides.

- Base model: `{manifest.base_model}`, licence {manifest.base_licence} ({training["base_source"]}), its vocabulary trimmed to
  {training["vocabulary"]} pieces of Arabic and English
- Taxonomy: {manifest.taxonomy}; longest passage {manifest.max_tokens} tokens
- Created: {manifest.created}; model hash `{manifest.model_hash}`

## Labels

{labels}

## Quality

Measured by `rasid-eval run --data {report["data"]}` (data digest `{report["data_digest"][:16]}`), passages never trained on and
from other articles than the training passages. Intervals are 95 % bootstrap intervals. The topics are enriched in this
file; in ordinary news the labels are rarer and precision is lower.

{_quality(report)}

{_bands(training)}{_articles(report)}{_suites(report)}{_reduced(reduced)}Export: on {parity["texts"]} validation passages the int8 model decides otherwise than the PyTorch model in
{parity["flipped"]:.2%} of the decisions; macro F1 {parity["macro_f1_reference"]:.4f} before, {parity["macro_f1_exported"]:.4f} after; largest
difference of a probability {parity["largest_probability_difference"]:.3f}.

## Training

{training["train"]} training and {training["validation"]} validation passages, split by source document; {training["dropped_duplicates"]} duplicates
dropped, {training.get("excluded", 0)} passages left out because they overlap with the evaluation files (a document, or ten words in a row). Focal loss, and the same loss between the sides of contrast pairs. Seeds {", ".join(map(str, training["seeds"]))} (weights averaged where more than one). {len(own)} files are Rasid's own corpus, {len(standoff)} are standoff annotations, {articles} of articles' sentences (for the thresholds of articles alone), {corrections} corrections, {others} other labelled text. Settings: {settings}. Calibration, thresholds and
the review band come from the validation passages alone.

{_averaged(training)}| file | SHA-256 of its content (first 16) |
|---|---|
{digests}

{sources}## Intended use

Triage and search by people who check: human rights documentation, humanitarian analysis, open-source investigation,
newsrooms. A label says what a text *tells*, not that it is true. Read the evidence, and read what came back as `review`.

## Not intended

Decisions about a person or a group without a human reading; moderation that removes texts unseen; counting victims;
judging whether a report is true; texts in other languages (they are answered but flagged and never decided).

## Limits

{SHIPPED_LIMIT if shipped else ""}- A passage is judged by itself: who "he" is in "he added" may stand one sentence earlier.
"""


def _sources(report: dict[str, Any]) -> str:
    def rows(sources: tuple[tuple[str, str, str], ...]) -> str:
        return "\n".join(f"| {name} | {what} | {licence} |" for name, what, licence in sources)

    names = [name for name, _what, _licence in TEST_SOURCES]
    unseen = sum(group["texts"] for group in report.get("groups", ()) if group["by"] == "source" and group["name"] in names)
    return f"""Sources of the real text that it was trained on beside Rasid's own corpus (labels are Rasid's; the texts belong to their outlets
and authors and are not distributed):

| source | what | licence as stated |
|---|---|---|
{rows(SOURCES)}

Sources of test passages alone ({unseen} of {report["slices"][0]["texts"]}), never trained on:

| source | what | licence as stated |
|---|---|---|
{rows(TEST_SOURCES)}

"""


def _averaged(training: dict[str, Any]) -> str:
    if "averaged" not in training:
        return ""
    rows = []
    for part in training["averaged"]:
        noise = {f"noise {key}": value for key, value in (part["noise"] or {}).items()}
        settings = ", ".join(f"{key} {value}" for key, value in {**part["settings"], **noise}.items() if key != "seed")
        seeds = ", ".join(map(str, part["seeds"]))
        rows.append(f"- `{part['name']}`: {part['train']} passages of {len(part['data'])} files; seeds {seeds}; {settings}")
    return (
        "The weights are the mean of networks fitted apart from one start (`rasid-train average`):\n\n"
        + "\n".join(rows)
        + "\n\n"
    )


def _bands(training: dict[str, Any]) -> str:
    if "review_band" not in training:
        return ""
    rows = "\n".join(
        f"| {band['language']} | {band['label']} | {band['yes_right']} of {band['yes']} | {band['yes_bound']:.3f} | "
        f"{band['no_right']} of {band['no']} | {1 - (band['yes'] + band['no']) / max(1, band['rows']):.1%} |"
        for band in training["review_band"]
    )
    return f"""The review band is the narrowest outside of which `yes` and `no` are each right in at least 95 % of the passages so
decided, by the exact lower bound (Clopper and Pearson) at 90 % confidence on the validation passages, unsure ones counted half; where no band reaches that, it
ends where the bound is highest. On the validation passages, counted whole (the bound takes no account of the choice of the band):

| language | label | `yes` right | lower bound | `no` right | in review |
|---|---|---|---|---|---|
{rows}

"""


def _articles(report: dict[str, Any]) -> str:
    found = report.get("documents")
    if not found:
        return ""
    rows = "\n".join(
        f"| {what} | {found[key]['macro']['value']:.3f} | {found[key]['macro']['interval'][0]:.3f}-{found[key]['macro']['interval'][1]:.3f} |"
        for what, key in (
            ("labels of articles", "document_f1"),
            ("labels of sentences, each judged alone", "sentence_f1"),
            ("sentences given as evidence", "evidence_f1"),
        )
    )
    faith = found["faithfulness"]
    return f"""On {found["articles"]} articles ({found["sentences"]} sentences, `{found["data"]}`), macro F1:

| what | F1 | 95 % |
|---|---|---|
{rows}

Without its evidence the probability of a label falls by {faith["drop_without_evidence"]:.3f}, without as many other sentences by
{faith["drop_without_others"]:.3f} (mean of {faith["cases"]} labels of articles).

"""


def _suites(report: dict[str, Any]) -> str:
    parts = []
    for suite in report.get("suites") or ():
        rows = "\n".join(
            f"| {name} | {cell['value']:.3f} | {cell['interval'][0]:.3f}-{cell['interval'][1]:.3f} | {cell['items']} |"
            for name, cell in suite["cells"].items()
        )
        parts.append(
            f"{suite['title']} ({suite['measure']}):\n\n| part | value | 95 % | items |\n|---|---|---|---|\n{rows}\n\n"
        )
    return "".join(parts)


def _reduced(reduced: dict[str, Any] | None) -> str:
    if not reduced:
        return ""
    figures = ", ".join(f"{part['name']} {part['averages']['macro']['f1']:.3f}" for part in reduced["slices"])
    return f"""A model made by the same code from the corpus of the repository alone (the second run of `training/make_shipped.sh`) reaches a macro
F1 on the same texts of: {figures}.

"""


def _quality(report: dict[str, Any]) -> str:
    lines = [
        "| language | label | support | precision | recall | F1 | 95 % | ECE | in review |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for part in report["slices"]:
        for label, found in part["labels"].items():
            low, high = found["f1_interval"]
            lines.append(
                f"| {part['name']} | {label} | {found['support']} | {found['precision']:.3f} | {found['recall']:.3f} | "
                f"{found['f1']:.3f} | {low:.3f}-{high:.3f} | {found['calibration_error']:.3f} | {found['review_share']:.1%} |"
            )
        macro = part["averages"]["macro"]
        low, high = macro["interval"]
        lines.append(f"| {part['name']} | **macro average** | | | | **{macro['f1']:.3f}** | {low:.3f}-{high:.3f} | | |")
    return "\n".join(lines)
