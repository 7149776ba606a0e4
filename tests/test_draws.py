"""Draws: a member has the stream it would have alone, and a part of a batch the rows of the whole."""

import pytest
import torch

from manifoldlab import draws


def source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("draw", [draws.normal, draws.uniform])
def test_members_draw_as_if_alone(draw) -> None:
    like = torch.zeros(6, 2, 3, dtype=torch.float64)
    together = draw(like, tuple(map(source, (1, 2, 3))))
    alone = torch.cat([draw(like[:2], source(seed)) for seed in (1, 2, 3)])
    assert together.dtype == torch.float64 and torch.equal(together, alone)


@pytest.mark.parametrize("draw", [draws.normal, draws.uniform])
@pytest.mark.parametrize("members", [1, 2])
def test_processes_draw_rows_of_one_batch(draw, members: int) -> None:
    sources = lambda: tuple(map(source, range(members)))
    whole = draw(torch.zeros(members * 5, 3), sources()).unflatten(0, (members, 5))
    parts = []
    for start, stop in ((0, 3), (3, 5), (5, 5)):
        with draws.share(start, stop, 5):
            part = draw(torch.zeros(members * (stop - start), 3), sources())
        parts.append(part.unflatten(0, (members, stop - start)))
    assert torch.equal(torch.cat(parts, 1), whole)


def test_uses_of_a_seed_have_streams_of_their_own() -> None:
    uses = [(), ("noise",), ("epoch", 0), ("epoch", 1), ("model",)]
    numbers = {draws.number(seed, *use) for seed in range(20) for use in uses}
    assert len(numbers) == 100 and draws.number(3, "epoch", 1) == draws.number(3, "epoch", 1)
    first = {draws.normal(torch.zeros(1), draws.source(0, *use)).item() for use in uses}
    assert len(first) == 5


def test_wrong_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="5 samples are no equal blocks for 2 members"):
        draws.normal(torch.zeros(5, 1), (source(0), source(1)))
    with pytest.raises(ValueError, match="rows 3 to 2 are no share of 4"), draws.share(3, 2, 4):
        pass
    with draws.share(0, 2, 4), pytest.raises(ValueError, match="3 samples where the share"):
        draws.normal(torch.zeros(3, 1), source(0))
