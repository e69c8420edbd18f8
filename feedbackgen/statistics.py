"""Intervals for what was counted."""

from statistics import NormalDist


def binomial_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a probability.

    Source: Wilson, 1927; Brown, Cai, DasGupta, 2001, equation 4. No trials give (0, 1).
    """
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * (share * (1 - share) / trials + z**2 / (4 * trials**2)) ** 0.5 / (1 + z**2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)
