"""What watches a training: measures, draws, averages; training itself goes on as without it."""

from lit_adv.callbacks.accuracy_under_attack import AccuracyUnderAttack
from lit_adv.callbacks.exponential_moving_average import ExponentialMovingAverage
from lit_adv.callbacks.gradient_accordance import GradientAccordance
from lit_adv.callbacks.loss_up_acc_up import LossUpAccUp
from lit_adv.callbacks.penalty_inequality import PenaltyInequality
from lit_adv.callbacks.stochastic_weight_averaging import StochasticWeightAveraging

__all__ = [
    "AccuracyUnderAttack",
    "ExponentialMovingAverage",
    "GradientAccordance",
    "LossUpAccUp",
    "PenaltyInequality",
    "StochasticWeightAveraging",
]
