"""MovieLens-100k: ratings from embeddings of user and film, trained here; RMSE in stars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastinfer.measure import sqnr_db
from tasks.cache import cached_tensors
from tasks.task import Figure, Split, Task, answers
from tasks.training import train
from tasks.wheels import widedeep_table

BATCH = 512
#: Ratings by part, of 100,000 in random order; training has the rest.
COUNTS = {"evaluation": 10_000, "choosing": 5_000}
CALIBRATION = 2_048


@dataclass(frozen=True)
class Recipe:
    """All that the trained weights depend on."""

    width: int = 96
    hidden: tuple[int, ...] = (512, 256)
    epochs: int = 6
    batch: int = 1024
    rate: float = 2e-3
    decay: float = 0.1
    dropout: float = 0.3
    seed: int = 0
    counts: tuple[tuple[str, int], ...] = tuple(COUNTS.items())


RECIPE = Recipe()


class RatingModel(nn.Module):
    """users and films [N] int64 -> ratings [N]: embeddings and known facts through an MLP."""

    def __init__(self, user_facts: Tensor, film_facts: Tensor, mean: float, recipe: Recipe) -> None:
        super().__init__()
        self.register_buffer("user_facts", user_facts)
        self.register_buffer("film_facts", film_facts)
        self.user = nn.Embedding(len(user_facts), recipe.width)
        self.film = nn.Embedding(len(film_facts), recipe.width)
        nn.init.normal_(self.user.weight, std=0.1)
        nn.init.normal_(self.film.weight, std=0.1)
        self.user_bias, self.film_bias = (
            nn.Embedding(len(user_facts), 1),
            nn.Embedding(len(film_facts), 1),
        )
        nn.init.zeros_(self.user_bias.weight)
        nn.init.zeros_(self.film_bias.weight)
        self.mean = mean
        widths = [2 * recipe.width + user_facts.shape[1] + film_facts.shape[1], *recipe.hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(recipe.dropout)]
        self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, users: Tensor, films: Tensor) -> Tensor:
        """Return the ratings, not clamped."""
        x = torch.cat(
            [
                self.user(users),
                self.film(films),
                F.embedding(users, self.user_facts),
                F.embedding(films, self.film_facts),
            ],
            dim=1,
        )
        rating: Tensor = self.mlp(x) + self.user_bias(users) + self.film_bias(films) + self.mean
        return rating[:, 0]


def movielens_task() -> Task:
    """Return the task."""
    return Task(
        name="movielens",
        title="MovieLens-100k, MLP with embeddings",
        headline="rmse",
        higher_is_better=False,
        build=build,
        batches=_batches,
        identities=lambda split: frozenset(map(str, _rows(split).tolist())),
        judge=lambda wanted, got, split: figures(wanted, got, ratings()[2][_rows(split)]),
        float_answers=_float_answers,
        timed_batch=BATCH,  # one user's candidates; a single rating is all overhead
    )


@cache
def ratings() -> tuple[Tensor, Tensor, Tensor]:
    """Return users, films (from 0) and stars (float32), [100000] each."""
    table = widedeep_table("MovieLens100k_data")
    users, films, stars = (torch.tensor(table[k]) for k in ("user_id", "movie_id", "rating"))
    return users - 1, films - 1, stars.float()


@cache
def facts() -> tuple[Tensor, Tensor]:
    """Return age, gender and occupation of users, and genres of films, as 0..1 columns."""
    users = widedeep_table("MovieLens100k_users")
    jobs = sorted(set(users["occupation"]))
    about_users = [
        [age / 100, float(gender == "F"), *(float(job == other) for other in jobs)]
        for age, gender, job in zip(users["age"], users["gender"], users["occupation"], strict=True)
    ]
    films = widedeep_table("MovieLens100k_items")
    genres = list(films)[list(films).index("unknown") :]
    about_films = zip(*(films[genre] for genre in genres), strict=True)
    return torch.tensor(about_users), torch.tensor(list(about_films), dtype=torch.float32)


@cache
def _rows(split: Split | str) -> Tensor:
    """Return which ratings a part has, [N] int64."""
    order = torch.randperm(100_000, generator=torch.Generator().manual_seed(RECIPE.seed))
    evaluation, choosing, training = order.split([*COUNTS.values(), 100_000 - sum(COUNTS.values())])
    parts = {
        "evaluation": evaluation,
        "choosing": choosing,
        "calibration": training[:CALIBRATION],
        "distillation": training,
    }
    return parts[split]


@cache
def _batches(split: Split) -> Sequence[tuple[Tensor, Tensor]]:
    users, films, _ = ratings()
    rows = _rows(split).split(BATCH)
    return [(users[part], films[part]) for part in rows]


def _fresh() -> RatingModel:
    users, films = facts()
    mean = float(ratings()[2][_rows("distillation")].mean())
    return RatingModel(users, films, mean, RECIPE)


def build() -> nn.Module:
    """Return the network, trained the first time, which takes half a minute."""
    model = _fresh()
    model.load_state_dict(cached_tensors("movielens", RECIPE, _train))
    return model.eval()


def _train() -> dict[str, Tensor]:
    """Return the trained weights."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(RECIPE.seed)
        model = _fresh()
        users, films, stars = (values[_rows("distillation")] for values in ratings())

        def loss(rows: Tensor) -> Tensor:
            return F.mse_loss(model(users[rows], films[rows]), stars[rows])

        train(model, len(users), RECIPE, loss)
    return dict(model.state_dict())


@cache
def _float_answers(split: Split) -> Tensor:
    return answers(build(), _batches(split))


def figures(wanted: Tensor, got: Tensor, stars: Tensor) -> dict[str, Figure]:
    """Return RMSE of [N] ratings, clamped to 1..5 stars, and their SQNR against float."""
    error = (got.clamp(1, 5) - stars).double()
    return {
        "rmse": Figure(float(error.square().mean().sqrt()), len(stars)),
        "sqnr_db": Figure(sqnr_db(wanted, got), len(stars)),
    }
