"""The 38 datasets of DSRL (Liu et al., 2023): names, sizes and the extremes by which the field normalises."""

import re
from dataclasses import dataclass

BULLET = "bullet-safety-gym"  # the suite
_SUFFIX = re.compile(r"-[\d.]+-\d+\.hdf5$")


@dataclass(frozen=True, kw_only=True)
class DsrlName:
    """One dataset of DSRL."""

    short: str
    file: str  # base name, by which OSRL's scripts find it
    n_episodes: int
    horizon: int  # steps
    return_min: float
    return_max: float
    cost_max: float  # per episode

    @property
    def environment(self) -> str:
        return _SUFFIX.sub("", self.file)

    @property
    def task(self) -> str:
        return self.environment.replace("Gymnasium", "")

    @property
    def suite(self) -> str:
        if "MetaDrive" in self.file:
            return "metadrive"
        if "Gymnasium" not in self.file:
            return BULLET
        return "safety-velocity" if "Velocity" in self.file else "safety-navigation"

    @property
    def cost_limits(self) -> tuple[float, float, float]:
        return (20.0, 40.0, 80.0) if "Gymnasium" in self.file else (10.0, 20.0, 40.0)


# Source: DSRL, dsrl/infos.py: short name, file, episodes, steps, least and greatest return, greatest cost.
_TABLE = (
    ("AntCircle", "SafetyAntCircle-v0-200-5728.hdf5", 5728, 500, 0.0177, 460.71, 200),
    ("AntRun", "SafetyAntRun-v0-150-1816.hdf5", 1816, 200, 0.001767, 955.48, 150),
    ("BallCircle", "SafetyBallCircle-v0-80-886.hdf5", 886, 200, 0.3831, 881.46, 80),
    ("BallRun", "SafetyBallRun-v0-80-940.hdf5", 940, 100, 26.34, 1327.4, 80),
    ("CarCircle", "SafetyCarCircle-v0-100-1450.hdf5", 1450, 300, 3.484, 534.31, 100),
    ("CarRun", "SafetyCarRun-v0-40-651.hdf5", 651, 200, 204.3, 574.65, 40),
    ("DroneCircle", "SafetyDroneCircle-v0-100-1923.hdf5", 1923, 300, 207.8, 996.39, 100),
    ("DroneRun", "SafetyDroneRun-v0-140-1990.hdf5", 1990, 200, 10.56, 682.83, 140),
    ("CarButton1", "SafetyCarButton1Gymnasium-v0-250-2656.hdf5", 2656, 1000, 0.002893, 44.42, 250),
    ("CarButton2", "SafetyCarButton2Gymnasium-v0-300-3755.hdf5", 3755, 1000, 0.001767, 41.995, 300),
    ("CarCircle1", "SafetyCarCircle1Gymnasium-v0-250-1271.hdf5", 1271, 500, 8.037, 24.942, 250),
    ("CarCircle2", "SafetyCarCircle2Gymnasium-v0-400-940.hdf5", 940, 500, 5.113, 25.95, 398),
    ("CarGoal1", "SafetyCarGoal1Gymnasium-v0-120-1671.hdf5", 1671, 1000, 0.01223, 39.908, 120),
    ("CarGoal2", "SafetyCarGoal2Gymnasium-v0-200-4105.hdf5", 4105, 1000, 0.001033, 28.903, 200),
    ("CarPush1", "SafetyCarPush1Gymnasium-v0-200-2871.hdf5", 2871, 1000, 0.0137, 16.304, 200),
    ("CarPush2", "SafetyCarPush2Gymnasium-v0-250-4407.hdf5", 4407, 1000, 0.0002939, 15.142, 250),
    ("PointButton1", "SafetyPointButton1Gymnasium-v0-200-2268.hdf5", 2268, 1000, 0.008822, 41.193, 200),
    ("PointButton2", "SafetyPointButton2Gymnasium-v0-250-3288.hdf5", 3288, 1000, 0.01411, 42.899, 250),
    ("PointCircle1", "SafetyPointCircle1Gymnasium-v0-200-1098.hdf5", 1098, 500, 20.07, 61.728, 200),
    ("PointCircle2", "SafetyPointCircle2Gymnasium-v0-300-895.hdf5", 895, 500, 20.48, 54.022, 299),
    ("PointGoal1", "SafetyPointGoal1Gymnasium-v0-100-2022.hdf5", 2022, 1000, 0.01196, 30.071, 100),
    ("PointGoal2", "SafetyPointGoal2Gymnasium-v0-200-3442.hdf5", 3442, 1000, 0.002617, 27.718, 200),
    ("PointPush1", "SafetyPointPush1Gymnasium-v0-150-2379.hdf5", 2379, 1000, 0.0014, 16.519, 150),
    ("PointPush2", "SafetyPointPush2Gymnasium-v0-200-3242.hdf5", 3242, 1000, 0.001244, 14.691, 200),
    ("AntVelocity", "SafetyAntVelocityGymnasium-v1-250-2249.hdf5", 2249, 1000, 6.152, 2976.3, 250),
    ("HalfCheetahVelocity", "SafetyHalfCheetahVelocityGymnasium-v1-250-2495.hdf5", 2495, 1000, 5.751, 2806.9, 250),
    ("HopperVelocity", "SafetyHopperVelocityGymnasium-v1-250-2240.hdf5", 2240, 1000, 37.05, 1911.4, 250),
    ("SwimmerVelocity", "SafetySwimmerVelocityGymnasium-v1-200-1686.hdf5", 1686, 1000, 0.07114, 238.96, 200),
    ("Walker2dVelocity", "SafetyWalker2dVelocityGymnasium-v1-300-2729.hdf5", 2729, 1000, 18.67, 3418.2, 300),
    ("easysparse", "SafeMetaDrive-easysparse-v0-85-1000.hdf5", 1000, 1000, 20.09, 425.8, 82.424),
    ("easymean", "SafeMetaDrive-easymean-v0-85-1000.hdf5", 1000, 1000, 22.14, 425.82, 82.386),
    ("easydense", "SafeMetaDrive-easydense-v0-85-1000.hdf5", 1000, 1000, 19.71, 425.82, 80.364),
    ("mediumsparse", "SafeMetaDrive-mediumsparse-v0-50-1000.hdf5", 1000, 1000, 17.45, 269.8, 46.465),
    ("mediummean", "SafeMetaDrive-mediummean-v0-50-1000.hdf5", 1000, 1000, 17.03, 269.82, 46.462),
    ("mediumdense", "SafeMetaDrive-mediumdense-v0-50-1000.hdf5", 1000, 1000, 15.1, 269.78, 46.459),
    ("hardsparse", "SafeMetaDrive-hardsparse-v0-85-1000.hdf5", 1000, 1000, 17.25, 486.81, 85.01),
    ("hardmean", "SafeMetaDrive-hardmean-v0-85-1000.hdf5", 1000, 1000, 19.39, 487, 84.34),
    ("harddense", "SafeMetaDrive-harddense-v0-85-1000.hdf5", 1000, 1000, 15.39, 486.64, 84.767),
)
DSRL = {
    short: DsrlName(
        short=short,
        file=file,
        n_episodes=n_episodes,
        horizon=horizon,
        return_min=return_min,
        return_max=return_max,
        cost_max=cost_max,
    )
    for short, file, n_episodes, horizon, return_min, return_max, cost_max in _TABLE
}


def dsrl_name(name: str) -> DsrlName | None:
    """DSRL's dataset of that name: ``PointGoal1``, an environment id, or a file's base name; None if it has none."""
    for entry in DSRL.values():
        if name in (entry.short, entry.environment, entry.task, entry.file):
            return entry
    return None
