"""The classical learners that synthetic families are compared with, by their registered names."""

from collections.abc import Mapping

from contexture.learners.classical.averaging import Averaging
from contexture.learners.classical.bayes_ridge import BayesRidge
from contexture.learners.classical.evidence_ridge import EvidenceRidge
from contexture.learners.classical.gaussian_process import GaussianProcess
from contexture.learners.classical.knn import KNearestNeighbours
from contexture.learners.classical.lasso import Lasso
from contexture.learners.classical.logistic import Logistic
from contexture.learners.classical.majority import Majority
from contexture.learners.classical.mean import Mean
from contexture.learners.classical.naive_bayes import NaiveBayes
from contexture.learners.classical.ols import OLS
from contexture.protocols import Learner


def _by_name(*learners: Learner) -> dict[str, Learner]:
    return {learner.card.name: learner for learner in learners}


def linear_oracle(noise: float) -> Learner:
    """What is optimal for w ~ N(0, I) and noise of this standard deviation; least squares where there is none.

    Without noise the shortest weights that fit are the posterior mean.
    """
    return BayesRidge(prior_variance=1.0, noise_variance=noise**2) if noise else OLS()


def linear_baselines() -> Mapping[str, Learner]:
    """For functions that are linear in x."""
    return _by_name(Mean(), Averaging(), OLS(), EvidenceRidge(), KNearestNeighbours())


def sparse_baselines() -> Mapping[str, Learner]:
    """For linear functions of few columns."""
    return _by_name(Mean(), Averaging(), OLS(), EvidenceRidge(), Lasso(), KNearestNeighbours())


def nonlinear_baselines() -> Mapping[str, Learner]:
    """For functions that are not linear in x."""
    return _by_name(Mean(), OLS(), EvidenceRidge(), KNearestNeighbours(), GaussianProcess())


def class_baselines() -> Mapping[str, Learner]:
    """For classes."""
    return _by_name(Majority(), Logistic(), NaiveBayes(), KNearestNeighbours())
