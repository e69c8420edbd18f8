"""MetaDrive's SafeMetaDriveEnv with the roads, the traffic and the costs of DSRL's nine datasets.

Source: DSRL (Liu et al., 2023), dsrl/offline_metadrive/gym_envs.py. We differ in one thing: DSRL's traffic comes from
a stream that no seed reaches; here reset's seed determines it.
"""

import gymnasium
import numpy as np
from gymnasium.envs.registration import register as gymnasium_register
from gymnasium.envs.registration import registry

ROADS = {
    "easy": "SCS",
    "medium": "XST",
    "hard": "TRO",
}  # blocks: S straight, C curve, X and T crossings, R ramp, O roundabout
TRAFFIC = {"sparse": 0.1, "mean": 0.15, "dense": 0.2}  # vehicles per 10 m and lane
HORIZON = 1000  # steps
SPEED_LIMIT = 10.0  # m/s
N_LASERS = 240  # lidar readings, the last of an observation


class MetaDriveEnv(gymnasium.Env):
    """Drive to the end of the road; only one in each process, which is MetaDrive's own rule.

    The cost of a step is that of a crash or of leaving the road, and a little for speed and for nearness.
    """

    def __init__(self, road: str, traffic: str):
        from metadrive.envs import SafeMetaDriveEnv
        from metadrive.manager.traffic_manager import TrafficMode

        self._env = SafeMetaDriveEnv(
            {
                "map": 3,
                "map_config": {"type": "block_sequence", "config": ROADS[road]},
                "traffic_density": TRAFFIC[traffic],
                "traffic_mode": TrafficMode.Hybrid,
                "random_traffic": True,
                "accident_prob": 0.0,
                "crash_vehicle_penalty": 0.0,
                "start_seed": 0,
                "num_scenarios": 1,
                "horizon": HORIZON,
                "log_level": 50,
            }
        )
        self.action_space = self._env.action_space
        self.observation_space = self._env.observation_space
        self._env.reset(seed=0)  # makes the engine, whose traffic can then be seeded

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        self._env.engine.traffic_manager.seed(seed)
        return self._env.reset(seed=0)

    def step(self, action):
        observation, reward, _, _, info = self._env.step(action)
        speed = max(0.0, 1e-2 * (info["velocity"] - SPEED_LIMIT))
        nearness = 1e-2 * max(0.0, 0.1 - float(np.min(observation[-N_LASERS:]))) ** 2
        cost = info["cost"] + speed + nearness
        terminated = bool(info["arrive_dest"] or info["crash"] or info["out_of_road"])
        return observation, reward, terminated, bool(info["max_step"]), {**info, "cost": cost}

    def close(self):
        self._env.close()


def register() -> None:
    """Register ``SafeMetaDrive-easysparse-v0`` to ``-harddense-v0``; MetaDrive is loaded when one is made."""
    for road in ROADS:
        for traffic in TRAFFIC:
            name = f"SafeMetaDrive-{road}{traffic}-v0"
            if name not in registry:
                gymnasium_register(
                    id=name,
                    entry_point="feedbackgen.environments.metadrive:MetaDriveEnv",
                    kwargs={"road": road, "traffic": traffic},
                    max_episode_steps=HORIZON,
                )
