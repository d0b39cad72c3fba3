"""MiniLM sentence embeddings: cosine to float, and the department of clothing reviews from them.

The department is found by a logistic regression that was trained once, on the float network's
embeddings of other reviews; it is never trained again, so it judges the embeddings.
"""

from __future__ import annotations

import ast
import random
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.cache import cached_tensors
from tasks.sentence_encoder import load_encoder, tokenize
from tasks.task import Figure, Split, Task, answers
from tasks.wheels import widedeep_table

BATCH, LONGEST = 32, 64
#: Reviews of each part; "training" is what the regression saw, and unlabelled distillation may.
REVIEWS = {"evaluation": 1600, "choosing": 512, "training": 4000}
#: Of calibration a quarter is other text: reviews alone leave other domains far off.
CALIBRATION_REVIEWS, CALIBRATION_OTHER = 192, 64
OTHER = {"evaluation": 192, "choosing": 64, "training": 1000}
#: Modules whose docstrings evaluate or choose; others' train. By file, as neighbours are alike.
OTHER_MODULES = {
    "evaluation": ("argparse", "decimal", "email/message", "shutil", "tarfile", "threading"),
    "choosing": ("calendar", "socket", "zipfile/__init__"),
}
TRAINING_MODULES = (
    "ast", "bdb", "cmd", "codecs", "collections/__init__", "concurrent/futures/_base",
    "configparser", "contextlib", "copy", "csv", "dataclasses", "datetime", "difflib", "dis",
    "doctest", "enum", "filecmp", "fractions", "ftplib", "functools", "gettext", "heapq",
    "html/parser", "http/client", "http/server", "imaplib", "inspect", "ipaddress", "json/decoder",
    "locale", "logging/__init__", "mailbox", "multiprocessing/pool", "nntplib", "optparse", "os",
    "pathlib", "pdb", "pickletools", "platform", "plistlib", "poplib", "pprint", "pydoc", "queue",
    "random", "sched", "selectors", "shelve", "smtplib", "socketserver", "ssl", "statistics",
    "string", "subprocess", "tempfile", "textwrap", "trace", "typing", "unittest/case",
    "unittest/mock", "urllib/parse", "urllib/request", "uuid", "warnings", "weakref", "zipapp",
)  # fmt: skip
SEED = 0
L2 = 1e-4


@dataclass(frozen=True)
class Text:
    """One text; department is its label, or -1 for text that is no review."""

    name: str
    text: str
    department: int


def minilm_task() -> Task:
    """Return the task."""
    return Task(
        name="minilm",
        title="MiniLM, department of clothing reviews",
        headline="accuracy",
        higher_is_better=True,
        build=load_encoder,
        batches=_batches,
        identities=lambda split: frozenset(text.name for text in texts(split)),
        judge=_judge,
        float_answers=float_embeddings,
    )


@cache
def departments() -> tuple[str, ...]:
    """Return the names of the classes."""
    return tuple(sorted({d for d in _reviews()["Department Name"] if d}))


@cache
def _reviews() -> dict[str, list[str]]:
    table = widedeep_table("WomensClothingE-CommerceReviews")
    return {key: table[key] for key in ("Review Text", "Department Name")}


@cache
def _shuffled_reviews() -> dict[str, list[Text]]:
    """Return the reviews of each part; of equal texts one is taken, so that parts are apart."""
    table = _reviews()
    unique: dict[str, Text] = {}
    for index, (text, department) in enumerate(
        zip(table["Review Text"], table["Department Name"], strict=True)
    ):
        if text and text.strip() and department:
            entry = Text(f"review {index}", text, departments().index(department))
            unique.setdefault(" ".join(text.lower().split()), entry)
    found = list(unique.values())
    random.Random(SEED).shuffle(found)
    parts, start = {}, 0
    for part, count in REVIEWS.items():
        parts[part] = found[start : start + count]
        start += count
    return parts


def _docstrings(modules: Sequence[str], count: int) -> list[Text]:
    """Return docstrings of at least 8 words out of the standard library, at most `count`."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, Text] = {}
    for module in modules:
        path = folder / f"{module}.py"
        if not path.exists():  # modules come and go between versions of Python
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
                continue
            text = " ".join((ast.get_docstring(node) or "").split())
            if len(text.split()) >= 8:
                line = getattr(node, "lineno", 0)
                found.setdefault(text, Text(f"{module}:{line}", text, -1))
    texts = list(found.values())
    random.Random(SEED).shuffle(texts)
    return texts[:count]


@cache
def texts(split: Split | str) -> tuple[Text, ...]:
    """Return the texts of a part in the order of its batches.

    Texts of a length go together, so that a batch needs little padding. The longest come first,
    as the example; the other batches are in no order, so that whoever takes a few gets all sorts.
    """
    if split in ("calibration", "distillation"):
        reviews = _shuffled_reviews()["training"]
        other = _docstrings(TRAINING_MODULES, OTHER["training"])
        if split == "calibration":
            reviews, other = reviews[:CALIBRATION_REVIEWS], other[:CALIBRATION_OTHER]
    else:
        reviews = _shuffled_reviews()[split]
        other = _docstrings(OTHER_MODULES.get(split, ()), OTHER[split])  # none for "training"
    by_length = sorted([*reviews, *other], key=lambda t: (-len(t.text.split()), t.name))
    groups = [by_length[start : start + BATCH] for start in range(0, len(by_length), BATCH)]
    rest = groups[1:]
    random.Random(SEED).shuffle(rest)
    return tuple(text for group in (groups[0], *rest) for text in group)


@cache
def _batches(split: Split | str) -> Sequence[tuple[Tensor, Tensor]]:
    return tokenize([text.text for text in texts(split)], BATCH, LONGEST)


def _departments_of(split: Split | str) -> Tensor:
    return torch.tensor([text.department for text in texts(split)])


@cache
def float_embeddings(split: Split | str) -> Tensor:
    """Return the float network's embeddings [N, 384] of a part, cached."""
    recipe = (split, BATCH, LONGEST, REVIEWS, OTHER, OTHER_MODULES, SEED, texts(split))

    def make() -> dict[str, Tensor]:
        return {"answers": answers(load_encoder(), _batches(split))}

    return cached_tensors("minilm", recipe, make)["answers"]


@cache
def classifier() -> tuple[Tensor, Tensor]:
    """Return weight [classes, 384] and bias of the regression, trained on float embeddings."""
    embeddings, labels = float_embeddings("training"), _departments_of("training")
    with torch.enable_grad():
        weight = torch.zeros(len(departments()), embeddings.shape[1], requires_grad=True)
        bias = torch.zeros(len(departments()), requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=300, line_search_fn="strong_wolfe", tolerance_grad=1e-6
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            error = F.cross_entropy(embeddings @ weight.T + bias, labels)
            error = error + L2 * weight.square().sum()
            error.backward()
            return error

        optimizer.step(loss)
    return weight.detach(), bias.detach()


def _judge(wanted: Tensor, got: Tensor, split: Split) -> dict[str, Figure]:
    weight, bias = classifier()
    return figures(wanted, got @ weight.T + bias, got, _departments_of(split))


def figures(wanted: Tensor, scores: Tensor, got: Tensor, labels: Tensor) -> dict[str, Figure]:
    """Return accuracy and cosines; label -1 marks text that is no review.

    Args:
        wanted: [N, width] embeddings of the float network.
        scores: [N, classes] of the classifier, for `got`.
        got: [N, width] embeddings of the network that is judged.
        labels: [N] int64.
    """
    review = labels >= 0
    cosine = F.cosine_similarity(wanted, got, dim=1)
    right = (scores.argmax(dim=1) == labels)[review]
    return {
        "accuracy": Figure(float(right.double().mean()), len(right)),
        "cosine": Figure(float(cosine[review].mean()), int(review.sum())),
        "cosine_other_text": Figure(float(cosine[~review].mean()), int((~review).sum())),
    }
