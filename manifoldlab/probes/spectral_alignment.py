"""Alignment by scale: how the energy of the gradient is spread over spatial frequencies, and the score's.

In the orthonormal Fourier transform F over height and width, with |f| the radial frequency in cycles a
pixel and B a band of it,

    share(B) = sum_{f in B} |F g|^2 / |g|^2,    cosine(B) = <F g, F s>_B / (|F g|_B |F s|_B),

so that shares sum to 1 (Parseval), and |g|_B |s|_B cosine(B) to <g, s>. Bands lie between `edges`; the
first has the mean, the last reaches to the corner, 0.71. Vectors are signals of one dimension, in the
order of their coordinates.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from manifoldlab.gradients import input_gradient, log_marginal, margin
from manifoldlab.interfaces import Batch, Geometry, Head, Model, Probe, Reference

OCTAVES = (1 / 16, 1 / 8, 1 / 4)  # cycles a pixel


class SpectralAlignment(NamedTuple):
    share: Tensor  # (n, bands) of the gradient's energy
    reference_share: Tensor  # (n, bands) of the reference's
    overlap: Tensor  # (n,) sum of the smaller share: 1 for the same spectrum
    cosine: (
        Tensor  # (n, bands) of gradient and reference within the band; 0 in one without frequencies
    )
    share_null: Tensor  # (n, bands) of white noise: the share of coefficients
    overlap_null: Tensor  # (n,) of white noise's expected spectrum with the reference's
    cosine_null: Tensor  # (n, bands) (coefficients)^(-1/2), root mean square of white noise


def spectral_alignment(
    model: Model,
    batch: Batch,
    geometry: Geometry,
    *,
    reference: Reference,
    head: Head = margin,
    edges: tuple[float, ...] = OCTAVES,
) -> SpectralAlignment:
    del geometry
    x = batch.x
    bands = _bands(x, edges)  # (frequencies, bands) of 0 and 1
    g = _transformed(input_gradient(model, x, batch.y, head))  # (n, C, frequencies)
    s = _transformed(reference(batch))
    energy, other, product = (
        (a * b.conj()).real.sum(1) @ bands for a, b in ((g, g), (s, s), (g, s))
    )  # (n, bands) each
    share, reference_share = (e / e.sum(1, keepdim=True) for e in (energy, other))
    scale = (energy * other).sqrt().clamp_min(torch.finfo(x.dtype).tiny)
    count = bands.sum(0)
    null = (count / count.sum()).expand_as(share)
    inverse = torch.where(count > 0, (count * g.shape[1]).clamp_min(1).rsqrt(), 0)
    return SpectralAlignment(
        share,
        reference_share,
        torch.minimum(share, reference_share).sum(1),
        product / scale,
        null,
        torch.minimum(null, reference_share).sum(1),
        inverse.expand_as(share),
    )


def _transformed(v: Tensor) -> Tensor:
    """(n, C, *space) -> (n, C, frequencies), an isometry."""
    field = v if v.ndim > 2 else v[:, None]
    spectrum: Tensor = torch.fft.fftn(field, dim=tuple(range(2, field.ndim)), norm="ortho")
    return spectrum.flatten(2)


def _bands(x: Tensor, edges: tuple[float, ...]) -> Tensor:
    if list(edges) != sorted(set(edges)) or not all(0 < edge < 1 for edge in edges):
        raise ValueError(f"edges of bands ascend from above 0, in cycles a pixel, not {edges}")
    space = x.shape[2:] if x.ndim > 2 else x.shape[1:]
    axes = [torch.fft.fftfreq(size, dtype=torch.float64, device=x.device) for size in space]
    squares = torch.stack([f.square() for f in torch.meshgrid(*axes, indexing="ij")])
    radius = squares.sum(0).sqrt().flatten()
    band = torch.bucketize(radius, radius.new_tensor(edges), right=True)
    return (band[:, None] == torch.arange(len(edges) + 1, device=x.device)).to(x)


def example(model: Model) -> Probe:
    """Against the model's own log_marginal gradient, which is the score if the model is Bayes."""
    own_score: Reference = lambda batch: input_gradient(model, batch.x, batch.y, log_marginal)

    def probe(model: Model, batch: Batch, geometry: Geometry) -> SpectralAlignment:
        return spectral_alignment(model, batch, geometry, reference=own_score)

    return probe
