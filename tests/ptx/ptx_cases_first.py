"""The launches that the kernel of first layers is run on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from host.launchers import Launchers
from host.runs import Run, Tile, prepare_gemm
from interpreter import AHEAD, BEHIND

from fastinfer.testing.case import Case
from fastinfer.testing.cases import OUTPUTS, UNBOUNDED, Conv, conv_case

_FIRST = Tile("first", 0, 0)


@dataclass(frozen=True)
class First:
    """A first layer's launch; offset: of x from an aligned address."""

    case: Case
    offset: int = 0
    multiprocessors: int = 2
    order: str = BEHIND

    def prepare(self, launchers: Launchers) -> Run:
        run = prepare_gemm(self.case, _FIRST, launchers, self.offset, self.multiprocessors)
        assert "15int8_first_conv" in run.kernel.name
        return run

    def __str__(self) -> str:
        return f"first_at{self.offset}_{self.multiprocessors}-{self.case}_{self.order}"


def _launches() -> Iterator[First]:
    seven = {"kernel": (7, 7), "stride": (2, 2), "padding": (3, 3)}
    wide = Conv(2, 3, (15, 37), 64, **seven)
    for output in (*OUTPUTS, *UNBOUNDED[:1]):
        yield First(
            conv_case(wide if output is OUTPUTS[0] else Conv(1, 3, (9, 11), 24, **seven), output)
        )
    yield First(conv_case(wide), 1, 1, AHEAD)
    yield First(conv_case(wide, zero_point=0), 0, 100)
    # More tiles than blocks.
    yield First(conv_case(Conv(5, 3, (13, 19), 40, **seven)), 0, 1, AHEAD)
    yield First(conv_case(Conv(1, 3, (6, 270), 16, (7, 7), (1, 2), (3, 3))))
    yield First(conv_case(Conv(3, 3, (13, 12), 32, (3, 3), (2, 2), (1, 1))), 3)
    yield First(conv_case(Conv(2, 4, (9, 20), 96, (3, 3), (1, 1), (1, 1))), 0, 1)
    yield First(conv_case(Conv(1, 4, (9, 20), 40, (3, 3), (1, 1), (0, 1))), 2)
    yield First(conv_case(Conv(2, 1, (10, 9), 70, (3, 4), (2, 1), (2, 1)), OUTPUTS[1]))
    yield First(conv_case(Conv(1, 3, (16, 24), 48, (4, 4), (4, 4), (0, 0))))
    yield First(conv_case(Conv(1, 2, (12, 11), 16, (7, 8), (3, 3), (2, 4))))
    yield First(conv_case(Conv(1, 3, (9, 11), 40, (7, 5), (1, 1), (3, 2)), weights="extreme"))


FIRST_LAUNCHES: tuple[First, ...] = tuple(_launches())
FIRST_TEMPLATES = ("15int8_first_conv",)
