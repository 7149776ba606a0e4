"""Networks of data sets, each trained once and kept in the cache for all runs."""

from dataclasses import asdict

from manifoldlab.interfaces import Data
from manifoldlab.models.autoencoder import Autoencoder
from manifoldlab.models.denoiser import Denoiser
from manifoldlab.studies import cache
from manifoldlab.studies.trained_autoencoder import Apprenticeship, trained_autoencoder
from manifoldlab.studies.trained_denoiser import Schooling, trained_denoiser
from manifoldlab.training import Advance, silent


def denoiser(data: Data, schooling: Schooling, *, advance: Advance = silent) -> Denoiser:
    facts = {"data": data.fingerprint, **asdict(schooling)}
    with cache.place("denoiser", facts) as folder:
        return trained_denoiser(data, schooling, folder=folder, advance=advance)


def autoencoder(data: Data, plan: Apprenticeship, *, advance: Advance = silent) -> Autoencoder:
    facts = {"data": data.fingerprint, **asdict(plan)}
    with cache.place("autoencoder", facts) as folder:
        return trained_autoencoder(data, plan, folder=folder, advance=advance)
