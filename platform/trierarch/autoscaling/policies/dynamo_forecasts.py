"""What Dynamo's planner expects of the next interval.

Source: ``core/load/predictors.py`` of ai-dynamo 1.6.1. Its default is an automatic
ARIMA fit, which is no closed formula; the two predictors that are one are here:
``constant`` takes the last value, ``kalman`` a local linear trend (level noise 1,
trend noise 0.1, measurement noise 10, from five points on). Leading zeros are no
history.
"""

from __future__ import annotations

from collections.abc import Sequence

CONSTANT, KALMAN = "constant", "kalman"
LEVEL_NOISE, TREND_NOISE, MEASUREMENT_NOISE = 1.0, 0.1, 10.0
FEWEST_POINTS = 5


def predict_next(values: Sequence[float], predictor: str) -> float:
    """Return the expected next value, never negative; 0 without history.

    Raises:
        ValueError: If there is no such predictor.
    """
    if predictor not in (CONSTANT, KALMAN):
        raise ValueError(f"predictor must be {CONSTANT} or {KALMAN}, got {predictor!r}")
    history = list(values)
    while history and history[0] == 0:
        history.pop(0)
    if not history:
        return 0.0
    if predictor == CONSTANT or len(history) < FEWEST_POINTS:
        return history[-1]
    level, trend = history[0], 0.0
    # Covariance of (level, trend): a b / b c.
    a, b, c = MEASUREMENT_NOISE, 0.0, MEASUREMENT_NOISE
    for value in history[1:]:
        level += trend
        a, b, c = a + 2 * b + c + LEVEL_NOISE, b + c, c + TREND_NOISE
        gain_level, gain_trend = a / (a + MEASUREMENT_NOISE), b / (a + MEASUREMENT_NOISE)
        surprise = value - level
        level += gain_level * surprise
        trend += gain_trend * surprise
        a, b, c = (1 - gain_level) * a, (1 - gain_level) * b, c - gain_trend * b
    return max(0.0, level + trend)
